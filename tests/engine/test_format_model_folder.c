/* Model folders: pipelines, bare components, and every way in which they can be wrong. */
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "format/model_folder.h"
#include "tests/test.h"

#define FOLDER "build/test_format_model_folder"
#define PIPE FOLDER "/pipe"
#define BARE FOLDER "/bare"
#define UNET_INDEX                                                                                                                         \
    "{\"_class_name\":\"DDPMPipeline\",\"unet\":[\"diffusers\",\"UNet2DModel\"],\"scheduler\":[\"diffusers\",\"DDPMScheduler\"],"          \
    "\"new_key\":{\"x\":[1]}"

static void put(const char *path, const char *text)
{
    dn_file_write(path, text, strlen(text), false, NULL);
}

static void make_folders(void)
{
    dn_make_folder(PIPE "/unet", NULL);
    dn_make_folder(PIPE "/scheduler", NULL);
    dn_make_folder(PIPE "/transformer", NULL);
    dn_make_folder(BARE, NULL);
    put(PIPE "/unet/config.json", "{}");
    put(PIPE "/transformer/config.json", "{}");
    put(PIPE "/scheduler/scheduler_config.json", "{\"_class_name\":\"DDPMScheduler\",\"num_train_timesteps\":1000}");
    put(PIPE "/model_index.json", UNET_INDEX "}");
    put(BARE "/config.json", "{\"_class_name\":\"UNet2DModel\"}");
    unlink(BARE "/scheduler_config.json");
}

static void a_pipeline_opens(void)
{
    dn_error error = {0};
    dn_model_folder *folder = NULL;
    make_folders();
    put(PIPE "/model_index.json", UNET_INDEX ",\"id2label\":{\"1\":\"tench, Tinca tinca\",\"0\":\"caf\\u00e9\",\"2\":\"\"},"
                                             "\"denoised\":{\"sampler\":\"ddim\",\"steps\":20}}");
    CHECK_OK(dn_model_folder_open(&folder, PIPE, &error), error);
    CHECK(strcmp(folder->pipeline_class, "DDPMPipeline") == 0 && strcmp(folder->path, PIPE) == 0);
    CHECK(strcmp(folder->network_path, PIPE "/unet") == 0 && strcmp(folder->scheduler_path, PIPE "/scheduler/scheduler_config.json") == 0);
    CHECK(cJSON_GetObjectItemCaseSensitive(folder->scheduler, "num_train_timesteps")->valueint == 1000);
    CHECK(folder->class_count == 3 && strcmp(folder->class_names[0], "caf\xC3\xA9") == 0);
    CHECK(strcmp(folder->class_names[1], "tench, Tinca tinca") == 0 && folder->class_names[2][0] == '\0');
    CHECK(strcmp(cJSON_GetObjectItemCaseSensitive(folder->defaults, "sampler")->valuestring, "ddim") == 0);
    dn_model_folder_free(folder);
    dn_model_folder_free(NULL);
}

static void a_transformer_pipeline_opens(void)
{
    dn_error error = {0};
    dn_model_folder *folder = NULL;
    make_folders();
    put(PIPE "/model_index.json",
        "{\"_class_name\":\"DiTPipeline\",\"transformer\":[\"diffusers\",\"Transformer2DModel\"],\"unet\":[null,null],"
        "\"id2label\":null,\"denoised\":null}");
    CHECK_OK(dn_model_folder_open(&folder, PIPE, &error), error);
    CHECK(strcmp(folder->network_path, PIPE "/transformer") == 0 && folder->class_count == 0 && !folder->class_names && !folder->defaults);
    dn_model_folder_free(folder);
}

static void a_bare_component_opens(void)
{
    dn_error error = {0};
    dn_model_folder *folder = NULL;
    make_folders();
    CHECK_OK(dn_model_folder_open(&folder, BARE, &error), error);
    CHECK(!folder->pipeline_class && strcmp(folder->network_path, BARE) == 0 && !folder->scheduler && !folder->scheduler_path);
    dn_model_folder_free(folder);
    folder = NULL;
    put(BARE "/scheduler_config.json", "{\"beta_start\":0.0001}");
    CHECK_OK(dn_model_folder_open(&folder, BARE, &error), error);
    CHECK(folder->scheduler && strcmp(folder->scheduler_path, BARE "/scheduler_config.json") == 0);
    dn_model_folder_free(folder);
}

static void wrong_indexes_are_refused(void)
{
    static const struct {
        const char *text, *rule;
    } cases[] = {
        {"", "byte 0"},
        {"[]", "not an object"},
        {"7", "not an object"},
        {"{\"a\":1,\"a\":2}", "duplicate key"},
        {"{}", "_class_name"},
        {"{\"_class_name\":7}", "_class_name"},
        {"{\"_class_name\":\"X\"}", "no denoiser"},
        {"{\"_class_name\":\"X\",\"unet\":\"yes\"}", "no denoiser"},
        {"{\"_class_name\":\"X\",\"unet\":[\"diffusers\"]}", "no denoiser"},
        {"{\"_class_name\":\"X\",\"Unet\":[\"diffusers\",\"UNet2DModel\"]}", "no denoiser"},
        {"{\"_class_name\":\"X\",\"unet\":[\"d\",\"U\"],\"transformer\":[\"d\",\"T\"]}", "two denoisers"},
        {UNET_INDEX ",\"id2label\":[\"a\"]}", "id2label is not an object"},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", "key \"2\""},
        {UNET_INDEX ",\"id2label\":{\"1\":\"a\"}}", "key \"1\""},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"01\":\"b\"}}", "key \"01\""},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"-1\":\"b\"}}", "key \"-1\""},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"+1\":\"b\"}}", "key \"+1\""},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"1 \":\"b\"}}", "key \"1 \""},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"\":\"b\"}}", "key \"\""},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"4294967297\":\"b\"}}", "key \"4294967297\""},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"0\":\"b\"}}", "duplicate key"},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"\\u0030\":\"b\"}}", "duplicate key"},
        {UNET_INDEX ",\"id2label\":{\"0\":7}}", "entry 0"},
        {UNET_INDEX ",\"id2label\":{\"0\":\"a\",\"1\":null}}", "entry 1"},
        {UNET_INDEX ",\"denoised\":[]}", "\"denoised\" is not an object"},
        {UNET_INDEX ",\"denoised\":\"ddim\"}", "\"denoised\" is not an object"},
    };
    make_folders();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {0};
        dn_model_folder *folder = NULL;
        put(PIPE "/model_index.json", cases[i].text);
        dn_status status = dn_model_folder_open(&folder, PIPE, &error);
        CHECK_MSG((status == DN_INVALID || status == DN_UNSUPPORTED) && !folder, "case %zu accepted: %s", i, cases[i].text);
        CHECK_MSG(strstr(error.message, "model_index.json") && strstr(error.message, cases[i].rule), "case %zu: \"%s\" is not \"%s\"", i,
                  error.message, cases[i].rule);
    }
}

static void long_names_are_refused(void)
{
    dn_error error = {0};
    dn_model_folder *folder = NULL;
    char text[3000];
    make_folders();
    snprintf(text, sizeof text, "{\"id2label\":{\"0\":\"%0*d\"}}", 1025, 1);
    put(BARE "/config.json", text);
    CHECK(dn_model_folder_open(&folder, BARE, &error) == DN_INVALID && strstr(error.message, "entry 0"));
}

static void missing_parts_are_named(void)
{
    dn_error error = {0};
    dn_model_folder *folder = NULL;
    make_folders();
    unlink(PIPE "/scheduler/scheduler_config.json");
    CHECK(dn_model_folder_open(&folder, PIPE, &error) == DN_IO && strstr(error.message, "scheduler_config.json"));
    put(PIPE "/scheduler/scheduler_config.json", "[1]");
    CHECK(dn_model_folder_open(&folder, PIPE, &error) == DN_INVALID && strstr(error.message, "scheduler_config.json: not an object"));
    unlink(PIPE "/unet/config.json");
    CHECK(dn_model_folder_open(&folder, PIPE, &error) == DN_IO && strstr(error.message, "unet/config.json"));
    CHECK_OK(dn_model_folder_open(&folder, FOLDER, &error), error); /* what it holds, the tensors will say */
    CHECK(!folder->pipeline_class && strcmp(folder->network_path, FOLDER) == 0 && !folder->vae_path && !folder->guide_path);
    dn_model_folder_free(folder);
    folder = NULL;
    CHECK(dn_model_folder_open(&folder, FOLDER "/none", &error) == DN_IO && strstr(error.message, "no such folder"));
    unlink(BARE "/config.json");
    CHECK(mkfifo(BARE "/config.json", 0600) == 0);
    CHECK(dn_model_folder_open(&folder, BARE, &error) == DN_INVALID && !folder);
    unlink(BARE "/config.json");
}

/* A cache of links that lost a file is no folder without it: another schedule would be taken in silence. */
static void links_to_nowhere_are_named(void)
{
    static const char *const names[] = {"model_index.json", "config.json", "scheduler_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        dn_error error = {0};
        dn_model_folder *folder = NULL;
        char path[256];
        make_folders();
        snprintf(path, sizeof path, "%s/%s", BARE, names[i]);
        unlink(path);
        CHECK(symlink("../../blobs/nowhere", path) == 0);
        dn_status status = dn_model_folder_open(&folder, BARE, &error);
        unlink(path);
        CHECK_MSG(status == DN_IO && folder == NULL && strstr(error.message, path) != NULL, "%s: %s", names[i], error.message);
    }
    make_folders();
}

int main(void)
{
    RUN(a_pipeline_opens);
    RUN(a_transformer_pipeline_opens);
    RUN(a_bare_component_opens);
    RUN(wrong_indexes_are_refused);
    RUN(long_names_are_refused);
    RUN(missing_parts_are_named);
    RUN(links_to_nowhere_are_named);
    return test_end();
}
