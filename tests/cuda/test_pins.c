/* The cache of pins: what is put is found again by the next process, and nothing that lies in its folder can do more than be ignored. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cuda/pins.h"
#include "tests/test.h"

#define IDENTITY "NVIDIA H200, sm_90, cuDNN 9.19.0, cuBLASLt 13.1.0"
#define FILE_NAME "pins-NVIDIA-H200-sm_90-cuDNN-9.19.0-cuBLASLt-13.1.0.json"

static char folder[64], path[160];

static const char valid[] = "{\"pins\":1,\"identity\":\"" IDENTITY "\",\"products\":{"
                            "\"conv 8x8\":{\"engine\":41,\"knobs\":[[2,5],[13,-1]]},"
                            "\"gemm\":{\"algo\":\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
                            "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff\"}}}\n";

static void write_bytes(const char *text, size_t bytes)
{
    FILE *file = fopen(path, "w");
    if (!file || fwrite(text, 1, bytes, file) != bytes || fclose(file))
        abort();
}

/* Runs with stderr in a file; what was said there. */
static const char *said(void (*doing)(void))
{
    static char text[1024];
    char name[] = "/tmp/test_pins_XXXXXX";
    int kept = dup(2), file = mkstemp(name);
    fflush(stderr);
    dup2(file, 2);
    doing();
    fflush(stderr);
    dup2(kept, 2);
    ssize_t bytes = pread(file, text, sizeof text - 1, 0);
    text[bytes > 0 ? bytes : 0] = '\0';
    close(kept);
    close(file);
    unlink(name);
    return text;
}

static dn_cuda_pins *opened(const char *where)
{
    dn_cuda_pins *pins = NULL;
    if (dn_cuda_pins_open(&pins, where, IDENTITY, NULL))
        abort();
    return pins;
}

static unsigned files_in_folder(void)
{
    unsigned count = 0;
    DIR *listing = opendir(folder);
    for (struct dirent *entry; listing && (entry = readdir(listing));)
        count += entry->d_name[0] != '.';
    if (listing)
        closedir(listing);
    return count;
}

static void kept_for_the_next_process(void)
{
    unlink(path);
    dn_cuda_pin conv = {.engine = 41, .knob_count = 2, .knobs = {{2, 5}, {13, -1}}}, gemm = {.is_algo = true}, out;
    for (unsigned i = 0; i < DN_CUDA_ALGO_BYTES; i++)
        gemm.algo[i] = (uint8_t)(i * 37);
    dn_cuda_pins *pins = opened(folder);
    CHECK(!dn_cuda_pins_find(pins, "conv", &out));
    dn_cuda_pins_put(pins, "conv", &gemm);
    dn_cuda_pins_put(pins, "conv", &conv);
    dn_cuda_pins_put(pins, "gemm \"quoted\" \xc3\xa9", &gemm);
    dn_cuda_pins_save(pins);
    CHECK(access(path, R_OK) == 0 && files_in_folder() == 1);
    dn_cuda_pins *next = opened(folder);
    CHECK(dn_cuda_pins_find(next, "conv", &out) && !memcmp(&out, &conv, sizeof out));
    CHECK(dn_cuda_pins_find(next, "gemm \"quoted\" \xc3\xa9", &out) && !memcmp(&out, &gemm, sizeof out));
    unlink(path);
    dn_cuda_pins_close(pins); /* nothing new: nothing is written */
    dn_cuda_pins_close(next);
    CHECK(files_in_folder() == 0);
    char deep[128], file[300];
    snprintf(deep, sizeof deep, "%s/a//b", folder); /* folders above it are made too */
    snprintf(file, sizeof file, "%s/%s", deep, FILE_NAME);
    pins = opened(deep);
    dn_cuda_pins_put(pins, "conv", &conv);
    dn_cuda_pins_close(pins);
    CHECK(unlink(file) == 0 && rmdir(deep) == 0);
    snprintf(deep, sizeof deep, "%s/a", folder);
    CHECK(rmdir(deep) == 0);
    pins = opened(NULL);
    dn_cuda_pins_put(pins, "conv", &conv);
    CHECK(dn_cuda_pins_find(pins, "conv", &out));
    dn_cuda_pins_close(pins);
}

static void open_and_close(void)
{
    dn_cuda_pins *pins = opened(folder);
    dn_cuda_pin pin = {.engine = 1}, out;
    if (!dn_cuda_pins_find(pins, "conv 8x8", &out))
        dn_cuda_pins_put(pins, "conv 8x8", &pin);
    dn_cuda_pins_close(pins);
}

static void broken_files_are_written_anew(void)
{
    const char *broken[] = {"",
                            "{",
                            "[]",
                            "{\"pins\":2,\"identity\":\"" IDENTITY "\",\"products\":{}}",
                            "{\"pins\":1,\"identity\":\"another card\",\"products\":{}}",
                            "{\"pins\":1,\"identity\":\"" IDENTITY "\"}"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        write_bytes(broken[i], strlen(broken[i]));
        const char *text = said(open_and_close);
        CHECK_MSG(strstr(text, FILE_NAME) && strstr(text, "ignored") && strchr(text, '\n') == text + strlen(text) - 1, "%zu: %s", i, text);
        CHECK_MSG(!*said(open_and_close), "%zu: the file that was written is broken", i);
    }
    write_bytes(valid, sizeof valid - 1);
    CHECK(!*said(open_and_close));
}

static dn_status parse(const char *text, size_t bytes, dn_cuda_pin *conv, bool *found)
{
    dn_cuda_pins *pins = opened(NULL);
    dn_status status = dn_cuda_pins_parse(pins, text, bytes, NULL);
    *found = dn_cuda_pins_find(pins, "conv 8x8", conv);
    dn_cuda_pins_close(pins);
    return status;
}

static void what_is_not_said_strictly_is_refused(void)
{
    static const char *const pins[] = {"{\"engine\":1}",
                                       "{\"engine\":1,\"knobs\":[],\"more\":1}",
                                       "{\"engine\":-1,\"knobs\":[]}",
                                       "{\"engine\":1.5,\"knobs\":[]}",
                                       "{\"engine\":\"1\",\"knobs\":[]}",
                                       "{\"engine\":1e300,\"knobs\":[]}",
                                       "{\"engine\":1,\"knobs\":{}}",
                                       "{\"engine\":1,\"knobs\":[1]}",
                                       "{\"engine\":1,\"knobs\":[[1]]}",
                                       "{\"engine\":1,\"knobs\":[[1,2,3]]}",
                                       "{\"engine\":1,\"knobs\":[[-1,2]]}",
                                       "{\"engine\":1,\"knobs\":[[1,1e17]]}",
                                       "{\"engine\":1,\"knobs\":[[1,null]]}",
                                       "{\"algo\":\"00\"}",
                                       "{\"algo\":7}",
                                       "{\"algo\":null}",
                                       "[]",
                                       "null",
                                       "\"text\"",
                                       "{}",
                                       "{\"Engine\":1,\"knobs\":[]}"};
    char text[1024];
    dn_cuda_pin pin;
    bool found;
    for (size_t i = 0; i < sizeof pins / sizeof *pins; i++) {
        int bytes =
            snprintf(text, sizeof text, "{\"pins\":1,\"identity\":\"%s\",\"products\":{\"conv 8x8\":{\"engine\":1,\"knobs\":[]},\"x\":%s}}",
                     IDENTITY, pins[i]);
        CHECK_MSG(parse(text, (size_t)bytes, &pin, &found) == DN_INVALID && !found, "%s", pins[i]);
    }
    int bytes = snprintf(text, sizeof text, "{\"pins\":1,\"identity\":\"%s\",\"products\":{\"x\":%s,\"x\":%s}}", IDENTITY,
                         "{\"engine\":1,\"knobs\":[]}", "{\"engine\":1,\"knobs\":[]}");
    CHECK(parse(text, (size_t)bytes, &pin, &found) == DN_INVALID);
    CHECK(parse(valid, sizeof valid - 1, &pin, &found) == DN_OK && found && pin.engine == 41 && pin.knob_count == 2);
    char two[2 * sizeof valid];
    bytes = snprintf(two, sizeof two, "%s%s", valid, valid);
    CHECK(parse(two, (size_t)bytes, &pin, &found) == DN_INVALID && !found);
}

/* Every prefix, and thousands of copies with bytes changed, doubled and taken out: all end, none is half taken, and what is accepted is
 * within its bounds. */
static void mutations_do_no_harm(void)
{
    uint64_t state = 7;
    char text[2 * sizeof valid];
    dn_cuda_pin pin;
    bool found;
    for (size_t bytes = 0; bytes < sizeof valid - 2; bytes++)
        CHECK(parse(valid, bytes, &pin, &found) == DN_INVALID && !found);
    for (int round = 0; round < test_rounds(20000); round++) {
        size_t bytes = sizeof valid - 1;
        memcpy(text, valid, sizeof valid);
        for (int change = 0; change < 1 + round % 4; change++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            size_t at = (state >> 33) % bytes, length = 1 + (state >> 20) % 16;
            length = length < bytes - at ? length : bytes - at;
            if (state >> 62 == 0 && bytes + length < sizeof text) {
                memmove(text + at + length, text + at, bytes - at);
                bytes += length;
            } else if (state >> 62 == 1 && bytes > length + 1) {
                memmove(text + at, text + at + length, bytes - at - length);
                bytes -= length;
            } else {
                text[at] = (char)(state >> 8);
            }
        }
        dn_status status = parse(text, bytes, &pin, &found);
        CHECK(status == DN_OK || (status == DN_INVALID && !found));
        CHECK(!found || pin.is_algo || (pin.engine >= 0 && pin.knob_count <= DN_CUDA_KNOBS_MAX));
    }
}

static void sizes_are_bounded(void)
{
    size_t bytes = (size_t)DN_CUDA_PINS_BYTES_MAX + 1, used = 0;
    char *text = calloc(1, bytes + 64);
    dn_cuda_pin pin;
    bool found;
    CHECK(text != NULL);
    memset(text, '[', 100000); /* deeper than a parser's stack may be */
    dn_status deep = parse(text, 100000, &pin, &found);
    memset(text, ' ', bytes);
    memcpy(text, valid, sizeof valid - 1);
    dn_status large = parse(text, bytes, &pin, &found), fits = parse(text, bytes - 1, &pin, &found);
    used = (size_t)snprintf(text, bytes, "{\"pins\":1,\"identity\":\"%s\",\"products\":{", IDENTITY);
    for (unsigned i = 0; i <= DN_CUDA_PINS_MAX; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s\"%u\":{\"engine\":1,\"knobs\":[]}", i ? "," : "", i);
    used += (size_t)snprintf(text + used, bytes - used, "}}");
    dn_status many = parse(text, used, &pin, &found);
    char name[DN_CUDA_PIN_NAME + 1];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    used =
        (size_t)snprintf(text, bytes, "{\"pins\":1,\"identity\":\"%s\",\"products\":{\"%s\":{\"engine\":1,\"knobs\":[]}}}", IDENTITY, name);
    dn_status longer = parse(text, used, &pin, &found);
    free(text);
    CHECK(deep == DN_INVALID && large == DN_INVALID && fits == DN_OK && many == DN_INVALID && longer == DN_INVALID);
}

static void unwritable(void)
{
    char inside[200];
    snprintf(inside, sizeof inside, "%s/pins", path); /* path is a file */
    dn_cuda_pins *pins = opened(inside);
    dn_cuda_pins_put(pins, "conv", &(dn_cuda_pin){.engine = 1});
    dn_cuda_pins_save(pins);
    dn_cuda_pins_put(pins, "conv", &(dn_cuda_pin){.engine = 2});
    dn_cuda_pins_close(pins);
}

static void a_folder_that_cannot_be_is_told_once(void)
{
    write_bytes(valid, sizeof valid - 1);
    const char *text = said(unwritable);
    CHECK_MSG(strstr(text, "cannot be kept") && strchr(text, '\n') == text + strlen(text) - 1, "%s", text);
}

static void *put_and_save(void *argument)
{
    dn_cuda_pins *pins = argument;
    char name[32];
    for (int i = 0; i < 50; i++) {
        dn_cuda_pin pin = {.engine = i}, out;
        snprintf(name, sizeof name, "product %d", i % 20);
        dn_cuda_pins_put(pins, name, &pin);
        if (!dn_cuda_pins_find(pins, name, &out) || i % 25 == 0)
            dn_cuda_pins_save(pins);
    }
    return NULL;
}

static void share(void)
{
    pthread_t threads[4];
    dn_cuda_pins *one = opened(folder), *other = opened(folder);
    for (int i = 0; i < 4; i++) {
        if (pthread_create(&threads[i], NULL, put_and_save, i % 2 ? one : other))
            abort();
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    dn_cuda_pins_close(one);
    dn_cuda_pins_close(other);
}

static void several_write_one_file(void)
{
    const char *text = said(share);
    CHECK_MSG(!*text, "%s", text);
    CHECK(!*said(open_and_close) && files_in_folder() == 1);
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/test_pins_%ld", (long)getpid());
    snprintf(path, sizeof path, "%s/%s", folder, FILE_NAME);
    RUN(kept_for_the_next_process);
    RUN(broken_files_are_written_anew);
    RUN(what_is_not_said_strictly_is_refused);
    RUN(mutations_do_no_harm);
    RUN(sizes_are_bounded);
    RUN(a_folder_that_cannot_be_is_told_once);
    RUN(several_write_one_file);
    unlink(path);
    rmdir(folder);
    return test_end();
}
