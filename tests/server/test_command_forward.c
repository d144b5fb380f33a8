/* `forward` from file to file: answers and trace against diffusers, and refusals of inputs that do not fit. */
#include "tests/test.h"

#include <stdbool.h>
#include <unistd.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "server/commands.h"
#include "server/options.h"

#define MODEL "tests/golden/unet_default"
#define CASE MODEL "/case.safetensors"

static char output[64], trace[64], input[64];

static int forward(const char *model, const char *in)
{
    char *words[] = {"forward", "--model", (char *)(uintptr_t)model, "--input", (char *)(uintptr_t)in, "--output", output,
                     "--trace", trace};
    return dn_command_forward(9, words);
}

/* Largest difference of two tensors over the largest expected value; negative when one is not there or shapes differ. */
static double difference(const char *path, const char *name, const char *expected_name)
{
    dn_safetensors *got = NULL, *expected = NULL;
    double worst = -1.0, largest = 1e-30;
    if (dn_safetensors_open(&got, path, NULL) == DN_OK && dn_safetensors_open(&expected, CASE, NULL) == DN_OK) {
        const dn_tensor_info *a = dn_safetensors_find(got, name), *b = dn_safetensors_find(expected, expected_name);
        if (a != NULL && b != NULL && a->rank == b->rank && memcmp(a->dims, b->dims, a->rank * sizeof a->dims[0]) == 0) {
            float *x = malloc(a->count * sizeof *x), *y = malloc(b->count * sizeof *y);
            bool read = dn_safetensors_read_f32(got, a, x, NULL) == DN_OK && dn_safetensors_read_f32(expected, b, y, NULL) == DN_OK;
            for (uint64_t i = 0; read && i < a->count; i++) {
                worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
                largest = fmax(largest, fabs((double)y[i]));
            }
            free(x);
            free(y);
        }
    }
    dn_safetensors_close(got);
    dn_safetensors_close(expected);
    return worst / largest;
}

static void answers_and_trace(void)
{
    CHECK(forward(MODEL, CASE) == DN_EXIT_OK);
    static const char *const names[][2] = {{"time_proj", "act/time_proj"},
                                           {"class_embedding", "act/class_embedding"},
                                           {"down_blocks.1.attentions.0", "act/down_blocks.1.attentions.0"},
                                           {"mid_block.resnets.0", "act/mid_block.resnets.0"},
                                           {"up_blocks.0.upsamplers.0", "act/up_blocks.0.upsamplers.0"},
                                           {"conv_out", "output"}};
    double answer = difference(output, "sample", "output");
    CHECK_MSG(answer >= 0.0 && answer <= 1e-5, "%g", answer);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        double node = difference(trace, names[i][0], names[i][1]);
        CHECK_MSG(node >= 0.0 && node <= 2e-5, "%s: %g", names[i][0], node);
    }
}

/* Zeros of this many rows and channels, one class, and one time or none. */
static dn_status write_input(uint64_t rows, uint64_t channels, int64_t label, bool times, dn_error *error)
{
    dn_safetensors_writer *writer = NULL;
    uint64_t dims[4] = {rows, channels, 8, 8};
    float *sample = calloc(rows * channels * 64, sizeof *sample);
    dn_status status = dn_safetensors_writer_create(&writer, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_add_f32(writer, "sample", DN_F32, 4, dims, sample, error);
    if (status == DN_OK && times)
        status = dn_safetensors_writer_add_f32(writer, "timestep", DN_F32, 1, (uint64_t[]){1}, (float[]){10.5f}, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_add_raw(writer, "class_labels", DN_I64, 1, (uint64_t[]){1}, &label, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, input, false, error);
    dn_safetensors_writer_free(writer);
    free(sample);
    return status;
}

static void one_time_and_one_class_for_all_rows(void)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(write_input(40, 3, 10, true, &error), error);
    CHECK(forward(MODEL, input) == DN_EXIT_OK);
    dn_safetensors *file = NULL;
    CHECK_OK(dn_safetensors_open(&file, output, &error), error);
    uint64_t rows = dn_safetensors_find(file, "sample")->dims[0];
    dn_safetensors_close(file);
    CHECK(rows == 40);
}

static void inputs_that_do_not_fit(void)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(write_input(1, 3, 11, true, &error), error);
    CHECK(forward(MODEL, input) == DN_EXIT_DATA);
    CHECK_OK(write_input(1, 3, -1, true, &error), error);
    CHECK(forward(MODEL, input) == DN_EXIT_DATA);
    CHECK_OK(write_input(1, 4, 0, true, &error), error);
    CHECK(forward(MODEL, input) == DN_EXIT_DATA);
    CHECK_OK(write_input(1, 3, 0, false, &error), error);
    CHECK(forward(MODEL, input) == DN_EXIT_DATA);
    CHECK(forward(MODEL, "tests/golden/no-such-file") != DN_EXIT_OK);
    CHECK(forward("tests/golden/no-such-model", CASE) != DN_EXIT_OK);
    CHECK(dn_command_forward(1, (char *[]){"forward"}) == DN_EXIT_USAGE);
}

static void a_model_that_cannot_be_run(void)
{
    static const char config[] = "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 8, \"resnet_time_scale_shift\": \"spatial\"}";
    dn_error error = {DN_OK, ""};
    char folder[64], path[96];
    snprintf(folder, sizeof folder, "/tmp/denoised-forward-%ld.model", (long)getpid());
    snprintf(path, sizeof path, "%s/config.json", folder);
    CHECK_OK(dn_make_folder(folder, &error), error);
    CHECK_OK(dn_file_write(path, config, strlen(config), false, &error), error);
    int code = forward(folder, CASE);
    unlink(path);
    rmdir(folder);
    CHECK(code == DN_EXIT_UNAVAILABLE);
}

int main(void)
{
    snprintf(output, sizeof output, "/tmp/denoised-forward-%ld.out", (long)getpid());
    snprintf(trace, sizeof trace, "/tmp/denoised-forward-%ld.trace", (long)getpid());
    snprintf(input, sizeof input, "/tmp/denoised-forward-%ld.in", (long)getpid());
    RUN(answers_and_trace);
    RUN(one_time_and_one_class_for_all_rows);
    RUN(inputs_that_do_not_fit);
    RUN(a_model_that_cannot_be_run);
    unlink(output);
    unlink(trace);
    unlink(input);
    return test_end();
}
