/* `train` from file to file: sheets while it runs, a log that no refused run empties, an interruption that leaves only whole
 * files, and a resumed run that always ends with its model written. */
#include "tests/test.h"

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "format/png_image.h"
#include "model/model.h"
#include "server/commands.h"
#include "server/options.h"

#define SIDE 8
#define COUNT 48

static char root[64], text[8][160];

static char *at(int slot, const char *name)
{
    snprintf(text[slot], sizeof text[slot], "%s/%s", root, name);
    return text[slot];
}

static dn_status write_data(dn_error *error)
{
    unsigned char pictures[16 + COUNT * SIDE * SIDE] = {0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, SIDE, 0, 0, 0, SIDE};
    unsigned char labels[8 + COUNT] = {0, 0, 8, 1, 0, 0, 0, COUNT};
    for (int n = 0; n < COUNT; n++) {
        labels[8 + n] = (unsigned char)(n % 3);
        for (int p = 0; p < SIDE * SIDE; p++)
            pictures[16 + n * SIDE * SIDE + p] = (unsigned char)(p % SIDE / 3 == n % 3 ? 220 : p % 7 + n);
    }
    dn_status status = dn_file_write(at(0, "train-images-idx3-ubyte"), pictures, sizeof pictures, false, error);
    return status == DN_OK ? dn_file_write(at(0, "train-labels-idx1-ubyte"), labels, sizeof labels, false, error) : status;
}

static dn_status write_recipe(const char *name, unsigned images, dn_error *error)
{
    char recipe[1024];
    int bytes = snprintf(recipe, sizeof recipe,
                         "{\"unet\":{\"_class_name\":\"UNet2DModel\",\"sample_size\":8,\"in_channels\":1,\"out_channels\":1,"
                         "\"block_out_channels\":[8],\"down_block_types\":[\"DownBlock2D\"],\"up_block_types\":[\"UpBlock2D\"],"
                         "\"layers_per_block\":1,\"norm_num_groups\":4,\"add_attention\":false,\"num_class_embeds\":4},"
                         "\"scheduler\":{\"_class_name\":\"DDIMScheduler\",\"prediction_type\":\"v_prediction\"},"
                         "\"images\":%u,\"batch\":8,\"class_dropout\":0.1,\"sample_every_images\":16,"
                         "\"defaults\":{\"sampler\":\"dpmpp_2m\",\"steps\":3,\"guidance_scale\":2}}",
                         images);
    return dn_file_write(at(0, name), recipe, (size_t)bytes, false, error);
}

static int train(const char *recipe, const char *output, bool resume)
{
    char *words[] = {"train", "--recipe", at(1, recipe), "--data", root, "--output", at(2, output), "--threads", "1", "--resume"};
    return dn_command_train(resume ? 10 : 9, words);
}

/* The log's text, malloc'd; empty when it cannot be read. */
static char *read_log(void)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    return dn_file_read(&bytes, &count, at(3, "out/train.log"), 1 << 20, NULL) == DN_OK ? (char *)bytes : calloc(1, 1);
}

static bool is_sheet(const char *name)
{
    unsigned char *bytes = NULL;
    uint8_t *pixels = NULL;
    size_t count = 0;
    uint32_t width = 0, height = 0, channels = 0;
    bool whole = dn_file_read(&bytes, &count, at(3, name), 1 << 20, NULL) == DN_OK &&
                 dn_png_decode(&pixels, &width, &height, &channels, bytes, count, 4096, NULL) == DN_OK;
    free(bytes);
    free(pixels);
    return whole && width == 3 * SIDE + 2 * 2 && height == 4 * SIDE + 3 * 2 && channels == 1; /* three classes, four rows */
}

static void sheets_are_drawn_while_it_runs(void)
{
    CHECK(train("recipe.json", "out", false) == DN_EXIT_OK);
    char *log = read_log();
    bool complained = strstr(log, "samples:") != NULL, saved = strstr(log, "images 48 ") != NULL;
    free(log);
    CHECK(saved);
    CHECK(!complained);
    CHECK(is_sheet("out/samples/000000016.png") && is_sheet("out/samples/000000032.png") && is_sheet("out/samples/000000048.png"));
}

static void a_refused_run_empties_no_log(void)
{
    char *before = read_log();
    int status = train("recipe.json", "out", false);
    char *after = read_log();
    bool same = before[0] != '\0' && strcmp(before, after) == 0;
    free(before);
    free(after);
    CHECK(status == DN_EXIT_DATA);
    CHECK(same);
}

/* As if the program had been killed between its last checkpoint and the model. */
static void a_finished_run_resumed_writes_its_model(void)
{
    dn_model *model = NULL;
    dn_error error = {DN_OK, ""};
    CHECK(unlink(at(3, "out/unet/diffusion_pytorch_model.safetensors")) == 0);
    CHECK(train("recipe.json", "out", true) == DN_EXIT_OK);
    CHECK_OK(dn_model_open(&model, at(3, "out/unet"), 0, 0, &error), error);
    dn_model_free(model);
}

static bool has_leftovers(const char *name)
{
    bool found = false;
    DIR *folder = opendir(at(3, name));
    for (struct dirent *entry = folder ? readdir(folder) : NULL; entry; entry = readdir(folder))
        found = found || strstr(entry->d_name, ".tmp") != NULL;
    if (folder)
        closedir(folder);
    return found;
}

static void ctrl_c_leaves_whole_files_and_resumes(void)
{
    dn_model *model = NULL;
    dn_error error = {DN_OK, ""};
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(train("long.json", "cut", false));
    for (int i = 0; i < 600 && access(at(3, "cut/samples/000000016.png"), F_OK) != 0; i++)
        usleep(100000);
    CHECK(kill(child, SIGINT) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK_MSG(WEXITSTATUS(status) == DN_EXIT_INTERRUPTED, "exit status %d", WEXITSTATUS(status));
    CHECK(!has_leftovers("cut") && !has_leftovers("cut/unet") && !has_leftovers("cut/checkpoint") && !has_leftovers("cut/samples"));
    CHECK_OK(dn_model_open(&model, at(3, "cut/unet"), 0, 0, &error), error);
    dn_model_free(model);
    CHECK(train("recipe.json", "cut", true) == DN_EXIT_DATA); /* the checkpoint is another recipe's */
}

int main(void)
{
    dn_error error = {DN_OK, ""};
    snprintf(root, sizeof root, "/tmp/denoised-train-%ld", (long)getpid());
    if (dn_make_folder(root, &error) != DN_OK || write_data(&error) != DN_OK || write_recipe("recipe.json", 48, &error) != DN_OK ||
        write_recipe("long.json", 40000000, &error) != DN_OK) {
        printf("FAIL setup: %s\n", error.message);
        return 1;
    }
    RUN(sheets_are_drawn_while_it_runs);
    RUN(a_refused_run_empties_no_log);
    RUN(a_finished_run_resumed_writes_its_model);
    RUN(ctrl_c_leaves_whole_files_and_resumes);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command) == 0 ? test_end() : 1;
}
