/* Fuzz entry (libFuzzer's): any bytes as one of the small files that configure: the first byte says which ('i' model_index.json, 'n' the
 * network's config.json, 's' scheduler_config.json, 'k' a file of API keys); the rest of the model folder is an honest one. What opens
 * must be described, which tries every sampler on it; a refusal must name the file. */
#include "tests/fuzz/fuzz.h"

#include <limits.h>

#include "engine.h"
#include "format/json.h"
#include "server/auth.h"
#include "server/describe_model.h"

#define MODEL "tests/golden/tiny/"
#define WEIGHTS "unet/diffusion_pytorch_model.safetensors"
#define FILE_BYTES_MAX 65536u

enum { INDEX, NETWORK, SCHEDULER, KEYS, FILE_COUNT };
static struct {
    int fd;
    const char *path;
    unsigned char honest[FILE_BYTES_MAX];
    size_t honest_bytes;
} files[FILE_COUNT] = {{.fd = -1}};

static void prepare(void)
{
    static const char *const names[] = {"model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "keys"};
    REQUIRE(mkdir(fuzz_path("unet"), 0700) == 0 && mkdir(fuzz_path("scheduler"), 0700) == 0);
    char weights[PATH_MAX];
    REQUIRE(realpath(MODEL WEIGHTS, weights) != NULL && symlink(weights, fuzz_path(WEIGHTS)) == 0);
    for (int i = 0; i < FILE_COUNT; i++) {
        char honest[128];
        files[i].fd = fuzz_file(&files[i].path, names[i]);
        snprintf(honest, sizeof honest, MODEL "%s", names[i]);
        FILE *file = i == KEYS ? NULL : fopen(honest, "rb");
        REQUIRE(i == KEYS || file != NULL);
        if (file != NULL) {
            files[i].honest_bytes = fread(files[i].honest, 1, sizeof files[i].honest, file);
            fclose(file);
        }
        fuzz_put(files[i].fd, files[i].honest, files[i].honest_bytes);
    }
}

static void read_keys(void)
{
    dn_error error = {DN_OK, ""};
    auth *keys = NULL;
    auth_identity who;
    dn_status status = auth_open(&keys, files[KEYS].path, &error);
    REQUIRE((status == DN_OK) == (keys != NULL) && (status == DN_OK || strstr(error.message, files[KEYS].path) != NULL));
    if (keys == NULL)
        return;
    REQUIRE(!auth_check(keys, NULL, &who) && !auth_check(keys, "Bearer ", &who) && !auth_check(keys, "Bearer no-such-secret-here", &who));
    auth_free(keys);
}

/* Most inputs end here, long before a plan is built. */
static bool index_opens(void)
{
    dn_error error = {DN_OK, ""};
    dn_model_folder *folder = NULL;
    dn_status status = dn_model_folder_open(&folder, fuzz_folder, &error);
    REQUIRE((status == DN_OK) == (folder != NULL) && (status == DN_OK || strstr(error.message, fuzz_folder) != NULL));
    dn_model_folder_free(folder);
    return status == DN_OK;
}

static bool scheduler_reads(void)
{
    const char *path = files[SCHEDULER].path;
    dn_error error = {DN_OK, ""};
    cJSON *config = NULL;
    dn_training_schedule *training = NULL;
    dn_scheduler_config scheduler;
    dn_status status = dn_json_read_python_file(&config, path, FILE_BYTES_MAX, &error);
    if (status == DN_OK)
        status = dn_training_schedule_from_json(&training, config, path, &error);
    if (status == DN_OK)
        status = dn_scheduler_config_from_json(&scheduler, config, path, &error);
    REQUIRE(status == DN_OK || strstr(error.message, path) != NULL);
    dn_training_schedule_free(training);
    cJSON_Delete(config);
    return status == DN_OK;
}

static void read_model(void)
{
    dn_error error = {DN_OK, ""};
    dn_engine *engine = NULL;
    api_model *model = NULL;
    const dn_engine_options options = {.threads = 1, .describe_only = true};
    dn_status status = dn_engine_open(&engine, fuzz_folder, &options, &error);
    REQUIRE((status == DN_OK) == (engine != NULL) && (status == DN_OK || error.message[0] != '\0'));
    if (engine == NULL)
        return;
    status = dn_describe_model(&model, "fuzz", engine, &error);
    REQUIRE((status == DN_OK) == (model != NULL) && (status == DN_OK || error.message[0] != '\0'));
    api_model_free(model);
    dn_engine_close(engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char kinds[] = "insk";
    if (files[0].fd < 0)
        prepare();
    const char *kind = size > 0 && data[0] != '\0' ? strchr(kinds, data[0]) : NULL;
    if (kind == NULL || size > FILE_BYTES_MAX)
        return 0;
    const long which = kind - kinds;
    unsigned sum = 0; /* of schedulers that read one in eight is tried with a whole model, which takes long */
    for (size_t i = 0; i < size; i++)
        sum += data[i];
    fuzz_put(files[which].fd, data + 1, size - 1);
    if (which == KEYS)
        read_keys();
    else if (which == NETWORK || (which == INDEX ? index_opens() : scheduler_reads() && sum % 8 == 0))
        read_model();
    fuzz_put(files[which].fd, files[which].honest, files[which].honest_bytes);
    return 0;
}
