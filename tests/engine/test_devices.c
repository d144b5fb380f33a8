/* Which device a name means, and what is said where there is none: against a driver and a library of our own making (tests/shims), each
 * question asked in a process of its own, since a process asks but once. */
#include "tests/test.h"

#include <libgen.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/devices.h"

#define ANSWER_BYTES 900
#define ENVIRONMENT_MAX 12

extern char **environ;

static char here[512]; /* folder of this program */
static char driver[600]; /* folder with libcuda.so.1 */
static char library[600]; /* folder with libdenoised_cuda.so */

/* ---- The one who is asked */

static int answer(const char *names)
{
    dn_device_choice choices[DN_DEVICES_MAX];
    char why[DN_DEVICE_WHY_BYTES] = "";
    uint32_t count = 0;
    dn_error error = {.status = DN_OK, .message = ""};
    dn_status status = dn_device_choose_all(choices, &count, names, why, sizeof why, &error);
    printf("%s:", dn_status_name(status));
    for (uint32_t i = 0; i < count && status == DN_OK; i++)
        printf(" %s=%s/%u", choices[i].name, choices[i].backend->name, choices[i].index);
    printf("|%s|%s", why, error.message);
    return 0;
}

static int tell_facts(void)
{
    const dn_gpu_facts *facts = dn_gpu_facts_get();
    printf("%d %d %d %u|%s|%s|", facts->emulated, facts->driver, facts->driver_version, facts->card_count, facts->library, facts->why);
    for (uint32_t i = 0; i < facts->card_count; i++)
        printf("%s %u.%u %llu;", facts->cards[i].name, facts->cards[i].major, facts->cards[i].minor,
               (unsigned long long)facts->cards[i].memory >> 20);
    return 0;
}

/* ---- Asking */

/* What `program` answers to `names` ("facts": the facts) with these variables, and without those of this process that matter here. */
static void ask_program(char out[ANSWER_BYTES], const char *program, const char *names, const char *const *variables)
{
    char *arguments[] = {(char *)program, "--ask", (char *)names, NULL};
    char **environment = calloc(256 + ENVIRONMENT_MAX, sizeof *environment);
    size_t used = 0;
    int ends[2] = {-1, -1}, status = -1;
    pid_t child = 0;
    out[0] = '\0';
    for (char **entry = environ; environment && *entry && used < 256; entry++)
        if (strncmp(*entry, "DENOISED_", 9) != 0 && strncmp(*entry, "LD_LIBRARY_PATH=", 16) != 0)
            environment[used++] = *entry;
    for (size_t i = 0; environment && variables && variables[i]; i++)
        environment[used++] = (char *)variables[i];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (environment && pipe(ends) == 0) {
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        posix_spawn_file_actions_addclose(&actions, ends[0]);
        if (posix_spawn(&child, program, &actions, NULL, arguments, environment) != 0)
            child = 0;
        close(ends[1]);
        size_t length = 0;
        for (ssize_t got = 1; child > 0 && got > 0 && length + 1 < ANSWER_BYTES; length += got > 0 ? (size_t)got : 0)
            got = read(ends[0], out + length, ANSWER_BYTES - 1 - length);
        out[length] = '\0';
        close(ends[0]);
        if (child > 0)
            waitpid(child, &status, 0);
    }
    posix_spawn_file_actions_destroy(&actions);
    free(environment);
    if (status != 0)
        snprintf(out, ANSWER_BYTES, "it ended with %d", status);
}

static void ask(char out[ANSWER_BYTES], const char *names, const char *const *variables)
{
    char program[600];
    snprintf(program, sizeof program, "%s/test_devices", here);
    ask_program(out, program, names, variables);
}

static char with_driver[700], with_library[700];

/* The machine with driver and library, and other variables; NULL is the last. */
#define MACHINE(...) ((const char *const[]){with_driver, with_library, __VA_ARGS__})
#define SAYS(text, part) CHECK_MSG(strstr(text, part) != NULL, "\"%.640s\" does not say \"%.250s\"", text, part)

/* ---- What is tested */

static void names_are_told_from_others(void)
{
    static const char *const good[] = {"cpu", "", "auto", "cuda", "cuda:0", "cuda:15", "all", "cuda:1,cuda:0", "cuda,cuda:3"};
    static const char *const bad[] = {
        "gpu",        "cuda:",          "cuda:x",     "cuda:-1",     "cuda0",          "CUDA",          "cuda:1 ",
        "cuda:1,",    "cuda:1,cuda:01", "cpu,cuda:0", "auto,cuda:0", "all,cuda:0",     ",cuda:0",       "cuda,cuda:0",
        "cuda:99999", "cpu,cpu",        "cpu:0",      "all,all",     "cuda:0,,cuda:1", "cuda:0,cuda:x", "auto,auto"};
    dn_error error;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_MSG(dn_device_names_check(good[i], &error) == DN_OK, "%s: %s", good[i], error.message);
    CHECK(dn_device_names_check(NULL, &error) == DN_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error.message[0] = '\0';
        CHECK_MSG(dn_device_names_check(bad[i], &error) == DN_INVALID && error.message[0], "%s is taken", bad[i]);
    }
    CHECK(dn_device_names_check("cuda:0,cuda:1,cuda:2,cuda:3,cuda:4,cuda:5,cuda:6,cuda:7,cuda:8,cuda:9,cuda:10,cuda:11,cuda:12,cuda:13,"
                                "cuda:14,cuda:15,cuda:16",
                                &error) == DN_INVALID);
    SAYS(error.message, "at most 16");
}

static void a_machine_with_gpus(void)
{
    char text[ANSWER_BYTES];
    ask(text, "auto", MACHINE(NULL));
    CHECK_MSG(strcmp(text, "ok: cuda:0=cuda/0||") == 0, "%s", text);
    ask(text, "cuda", MACHINE(NULL));
    CHECK_MSG(strcmp(text, "ok: cuda:0=cuda/0||") == 0, "%s", text);
    ask(text, "cuda:1,cuda:0", MACHINE(NULL));
    CHECK_MSG(strcmp(text, "ok: cuda:1=cuda/1 cuda:0=cuda/0||") == 0, "%s", text);
    ask(text, "all", MACHINE(NULL));
    CHECK_MSG(strcmp(text, "ok: cuda:0=cuda/0 cuda:1=cuda/1||") == 0, "%s", text);
    ask(text, "cpu", MACHINE(NULL));
    CHECK_MSG(strcmp(text, "ok: cpu=cpu/0||") == 0, "%s", text);
    ask(text, "cuda:2", MACHINE(NULL));
    CHECK_MSG(strcmp(text, "unsupported:||there is no cuda:2: this machine has 2 GPUs, from cuda:0 on") == 0, "%s", text);
    ask(text, "facts", MACHINE(NULL));
    SAYS(text, "0 1 13000 2|");
    SAYS(text, "|Imagined GPU 0 9.0 1024;Imagined GPU 1 9.0 2048;");
}

static void a_card_that_is_too_old(void)
{
    char text[ANSWER_BYTES];
    ask(text, "auto", MACHINE("DRIVER_FIRST=7", NULL));
    CHECK_MSG(strcmp(text, "ok: cuda:1=cuda/1||") == 0, "%s", text);
    ask(text, "cuda", MACHINE("DRIVER_FIRST=7", NULL));
    SAYS(text, "unsupported:||cuda:0 (Imagined GPU 0) has compute capability 7.0, and 8.0 is needed");
    ask(text, "auto", MACHINE("DRIVER_CAPABILITY=6", NULL));
    SAYS(text, "ok: cpu=cpu/0|cuda:");
    ask(text, "all", MACHINE("DRIVER_FIRST=7", NULL));
    SAYS(text, "unsupported:");
}

/* No driver anywhere on this machine, or the test cannot show it. */
static void a_machine_without_a_driver(void)
{
    char text[ANSWER_BYTES];
    ask(text, "facts", NULL);
    if (strncmp(text, "0 1", 3) == 0)
        SKIP("this machine has a driver");
    ask(text, "auto", NULL);
    CHECK_MSG(strcmp(text, "ok: cpu=cpu/0||") == 0, "%s", text);
    ask(text, "cuda", NULL);
    SAYS(text, "unsupported:||no GPU can be used: no NVIDIA driver is installed (libcuda.so.1): install driver 580 or later");
    ask(text, "cuda", (const char *const[]){with_library, NULL});
    SAYS(text, "no NVIDIA driver is installed");
    ask(text, "auto", (const char *const[]){with_library, NULL});
    SAYS(text, "ok: cpu=cpu/0|no GPU can be used: no NVIDIA driver is installed");
}

static void what_the_driver_says(void)
{
    static const struct {
        const char *variable, *says;
    } cases[] = {
        {"DRIVER_INIT=100", "the NVIDIA driver finds no GPU: look at nvidia-smi, at CUDA_VISIBLE_DEVICES"},
        {"DRIVER_GPUS=0", "the NVIDIA driver finds no GPU"},
        {"DRIVER_INIT=34", "the CUDA toolkit's stub"},
        {"DRIVER_INIT=803", "restart this machine"},
        {"DRIVER_INIT=800", "/dev/nvidia*"},
        {"DRIVER_INIT=999", "does not start (cuInit: 999): look at nvidia-smi and dmesg"},
        {"DRIVER_VERSION=12040", "too old: it supports CUDA 12.4, and 13.0 is needed (driver 580 or later)"},
    };
    char text[ANSWER_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ask(text, "cuda", MACHINE(cases[i].variable, NULL));
        SAYS(text, "unsupported:||no GPU can be used: ");
        SAYS(text, cases[i].says);
        ask(text, "auto", MACHINE(cases[i].variable, NULL));
        SAYS(text, "ok: cpu=cpu/0|no GPU can be used: "); /* a driver is there: why it is not used is worth a word */
        SAYS(text, cases[i].says);
    }
}

static void what_is_wrong_with_the_library(void)
{
    static const struct {
        const char *variable, *says;
    } cases[] = {
        {"GPU_LIBRARY=abi", "is of another build: its interface is number 77, this program's 1"},
        {"GPU_LIBRARY=bytes", "its structures have other sizes"},
        {"GPU_LIBRARY=sizes", "its structures have other sizes"},
        {"GPU_LIBRARY=sources", "it was built from sources 0123456789abcdef, this program from "},
        {"GPU_LIBRARY=nothing", "it says nothing of itself"},
        {"GPU_LIBRARY=count", "cuDNN 9.1 is installed, and 9.13 is needed"},
    };
    char text[ANSWER_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ask(text, "cuda", MACHINE(cases[i].variable, NULL));
        SAYS(text, "unsupported:||no GPU can be used: ");
        SAYS(text, cases[i].says);
    }
}

/* A folder beside this program, or below one. */
static void make_folder(char out[600], const char *name)
{
    snprintf(out, 600, "%.500s/%s", here, name);
    mkdir(out, 0755);
}

/* `name` in `folder` becomes the file of the shims. */
static void link_shim(const char *folder, const char *name, const char *shim)
{
    char from[700], to[800];
    snprintf(from, sizeof from, "%s/../shims/%s", here, shim);
    snprintf(to, sizeof to, "%s/%s", folder, name);
    unlink(to);
    if (link(from, to) != 0)
        printf("# %s: %s is not there\n", shim, from);
}

static void libraries_that_are_none(void)
{
    char folder[600], text[ANSWER_BYTES], variable[700], path[700];
    make_folder(folder, "devices.none");
    snprintf(variable, sizeof variable, "DENOISED_BACKEND_DIR=%s", folder);
    const char *const machine[] = {with_driver, variable, NULL};
    snprintf(path, sizeof path, "%s/libdenoised_cuda.so", folder);

    unlink(path);
    ask(text, "cuda", machine);
    SAYS(text, "no libdenoised_cuda.so in ");
    SAYS(text, "/devices.none, which DENOISED_BACKEND_DIR names");

    FILE *file = fopen(path, "we");
    CHECK(file != NULL &&
          fputs("what somebody downloaded: <html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1></body></html>\n",
                file) >= 0 &&
          fclose(file) == 0);
    ask(text, "cuda", machine);
    SAYS(text, "libdenoised_cuda.so cannot be opened: ");
    SAYS(text, "invalid ELF header");

    link_shim(folder, "libdenoised_cuda.so", "gpu_driver.so");
    ask(text, "cuda", machine);
    SAYS(text, "libdenoised_cuda.so is not the CUDA library of denoised: it has no denoised_backend");

    link_shim(folder, "libdenoised_cuda.so", "gpu_lacks_cudnn.so");
    ask(text, "cuda", machine);
    SAYS(text,
         "libcudnn.so.9 is missing: install libcudnn9-cuda-13 (NVIDIA's apt) or nvidia-cudnn-cu13 (pip); where it lies elsewhere, name "
         "its folder in LD_LIBRARY_PATH");
}

/* A program and a library put where they belong; and never the working directory. */
static void where_the_library_is_looked_for(void)
{
    char folder[600], bin[600], lib[700], program[700], text[ANSWER_BYTES];
    const char *const machine[] = {with_driver, NULL};
    const char *const relative[] = {with_driver, "DENOISED_BACKEND_DIR=.", NULL};
    char self[600];
    make_folder(folder, "devices.prefix");
    make_folder(bin, "devices.prefix/bin");
    make_folder(lib, "devices.prefix/lib");
    make_folder(lib, "devices.prefix/lib/denoised");
    snprintf(program, sizeof program, "%s/test_devices", bin);
    snprintf(self, sizeof self, "%s/test_devices", here);
    unlink(program);
    CHECK(link(self, program) == 0);
    char beside[700], installed[800];
    snprintf(beside, sizeof beside, "%s/libdenoised_cuda.so", bin);
    snprintf(installed, sizeof installed, "%s/libdenoised_cuda.so", lib);
    unlink(beside);
    unlink(installed);

    CHECK(chdir(library) == 0); /* where the library is */
    ask_program(text, program, "cuda", machine);
    char back[ANSWER_BYTES];
    memcpy(back, text, sizeof back);
    ask_program(text, program, "cuda", relative);
    SAYS(text, "DENOISED_BACKEND_DIR must be an absolute path, not \".\"");
    SAYS(back, "no libdenoised_cuda.so in ");
    SAYS(back, "/devices.prefix/bin, nor in its ../lib/denoised: this is an installation for CPUs");

    link_shim(lib, "libdenoised_cuda.so", "gpu_library.so");
    ask_program(text, program, "facts", machine);
    SAYS(text, "/devices.prefix/bin/../lib/denoised/libdenoised_cuda.so||");
    link_shim(bin, "libdenoised_cuda.so", "gpu_library.so");
    ask_program(text, program, "facts", machine);
    SAYS(text, "/devices.prefix/bin/libdenoised_cuda.so||");
    unlink(beside);
    unlink(installed);
}

int main(int argc, char **argv)
{
    char path[512], root[512];
    if (argc == 3 && strcmp(argv[1], "--ask") == 0)
        return strcmp(argv[2], "facts") == 0 ? tell_facts() : answer(argv[2]);
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    snprintf(here, sizeof here, "%s", dirname(path));
    if (getcwd(root, sizeof root) == NULL)
        root[0] = '\0';
    make_folder(driver, "devices.driver");
    make_folder(library, "devices.library");
    link_shim(driver, "libcuda.so.1", "gpu_driver.so");
    link_shim(library, "libdenoised_cuda.so", "gpu_library.so");
    snprintf(with_driver, sizeof with_driver, "LD_LIBRARY_PATH=%s", driver);
    snprintf(with_library, sizeof with_library, "DENOISED_BACKEND_DIR=%s", library);
    RUN(names_are_told_from_others);
    RUN(a_machine_with_gpus);
    RUN(a_card_that_is_too_old);
    RUN(a_machine_without_a_driver);
    RUN(what_the_driver_says);
    RUN(what_is_wrong_with_the_library);
    RUN(libraries_that_are_none);
    RUN(where_the_library_is_looked_for);
    return (chdir(root) == 0 ? 0 : 1) | test_end();
}
