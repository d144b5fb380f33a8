/* What is saved opens again, here and in diffusers: every block of a transformer has its copy of shared embedders, and formats with
 * names of their own are refused. */
#include "tests/test.h"

#include <unistd.h>

#include "base/file.h"
#include "format/json.h"
#include "model/model.h"
#include "train/train.h"

static dn_error error;
static char folder[64];

/* A model of a golden folder's configuration, with weights of its own. */
static dn_status make(dn_model **out, cJSON **config, const char *golden)
{
    char path[160];
    snprintf(path, sizeof path, "%s/config.json", golden);
    dn_status status = dn_json_read_file(config, path, 1 << 20, &error);
    if (status == DN_OK)
        status = dn_model_from_config(out, *config, path, &error);
    if (status == DN_OK)
        status = dn_weights_create(&(*out)->weights, (*out)->plan, &error);
    if (status == DN_OK)
        dn_initialise((*out)->plan, (*out)->weights, 7, false);
    return status;
}

static void remove_saved(void)
{
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors"};
    char path[160];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void check_names(const dn_tensors *saved, const dn_tensors *golden)
{
    CHECK_MSG(dn_tensors_count(saved) == dn_tensors_count(golden), "%zu tensors of %zu", dn_tensors_count(saved), dn_tensors_count(golden));
    for (size_t i = 0; i < dn_tensors_count(golden); i++) {
        const dn_tensor_info *wanted = dn_tensors_at(golden, i), *found = dn_tensors_find(saved, wanted->name);
        CHECK_MSG(found != NULL, "%s is missing", wanted->name);
        CHECK_MSG(found->rank == wanted->rank && memcmp(found->dims, wanted->dims, wanted->rank * sizeof wanted->dims[0]) == 0,
                  "%s has another shape", wanted->name);
    }
}

static void transformers_have_every_copy(void)
{
    dn_model *model = NULL, *again = NULL;
    cJSON *config = NULL;
    dn_tensors *saved = NULL, *golden = NULL;
    char path[160];
    bool equal = false;
    CHECK_OK(make(&model, &config, "tests/golden/dit_default"), error);
    CHECK_OK(dn_model_save(model, config, folder, DN_F32, &error), error);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    CHECK_OK(dn_tensors_open(&saved, path, &error), error);
    CHECK_OK(dn_tensors_open(&golden, "tests/golden/dit_default/diffusion_pytorch_model.safetensors", &error), error);
    check_names(saved, golden);
    if (test_failed)
        return;
    const dn_tensor_info *first = dn_tensors_find(saved, "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight");
    const dn_tensor_info *second = dn_tensors_find(saved, "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight");
    CHECK_OK(dn_tensors_equal(saved, first, second, &equal, &error), error);
    CHECK(equal);
    CHECK_OK(dn_model_open(&again, folder, 0, 0, &error), error);
    CHECK(again->weights->total == model->weights->total);
    CHECK(memcmp(again->weights->storage, model->weights->storage, model->weights->total * sizeof(float)) == 0);
    dn_tensors_close(saved);
    dn_tensors_close(golden);
    dn_model_free(again);
    dn_model_free(model);
    cJSON_Delete(config);
    remove_saved();
}

static void formats_with_their_own_names_are_refused(void)
{
    static const char *const goldens[] = {"tests/golden/dit_original", "tests/golden/edm_adm", "tests/golden/edm_ddpmpp",
                                          "tests/golden/guided_diffusion_new"};
    for (size_t i = 0; i < sizeof goldens / sizeof goldens[0]; i++) {
        dn_model *model = NULL;
        cJSON *config = NULL;
        CHECK_OK(make(&model, &config, goldens[i]), error);
        CHECK(dn_model_save(model, config, folder, DN_F32, &error) == DN_UNSUPPORTED);
        CHECK_MSG(strstr(error.message, model->architecture) != NULL, "%s", error.message);
        CHECK(access(folder, F_OK) != 0);
        dn_model_free(model);
        cJSON_Delete(config);
    }
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/denoised-save-%ld", (long)getpid());
    RUN(transformers_have_every_copy);
    RUN(formats_with_their_own_names_are_refused);
    remove_saved();
    return test_end();
}
