/* Opens libdenoised_cuda.so and makes sure that it belongs to this program.
 *
 * Invariant: of a library nothing is called but its one function until ABI, sizes and sources agree. It is never closed. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/gpu.h"

/* What the library is linked to, and where it comes from. */
static const struct {
    const char *file, *apt, *pip;
} NEEDED[] = {
    {"libcudnn.so.9", "libcudnn9-cuda-13", "nvidia-cudnn-cu13"},
    {"libcublasLt.so.13", "libcublas-13-0", "nvidia-cublas"},
    {"libnvrtc.so.13", "cuda-nvrtc-13-0", "nvidia-cuda-nvrtc"},
};

/* The folder of this program, without a slash at its end; false: the system does not say. */
static bool program_folder(char *out, size_t bytes)
{
    ssize_t length = readlink("/proc/self/exe", out, bytes - 1);
    if (length <= 0 || (size_t)length >= bytes - 1)
        return false;
    out[length] = '\0';
    char *slash = strrchr(out, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return true;
}

/* Whether the file is there; its path stays in facts->library if so. */
static bool is_there(dn_gpu_facts *facts, const char *folder, const char *below)
{
    int bytes = snprintf(facts->library, sizeof facts->library, "%s%s/" DN_BACKEND_FILE, folder, below);
    if (bytes > 0 && (size_t)bytes < sizeof facts->library && access(facts->library, F_OK) == 0)
        return true;
    facts->library[0] = '\0';
    return false;
}

static bool find_library(dn_gpu_facts *facts, const char *forced)
{
    char folder[800];
    if (forced != NULL) {
        if (forced[0] != '/')
            snprintf(facts->why, sizeof facts->why, "DENOISED_BACKEND_DIR must be an absolute path, not \"%.200s\"", forced);
        else if (!is_there(facts, forced, ""))
            snprintf(facts->why, sizeof facts->why, "no " DN_BACKEND_FILE " in %.300s, which DENOISED_BACKEND_DIR names", forced);
        else
            return true;
        return false;
    }
    if (!program_folder(folder, sizeof folder)) {
        snprintf(facts->why, sizeof facts->why,
                 "/proc/self/exe does not say where this program is, and so where " DN_BACKEND_FILE " may be");
        return false;
    }
    if (is_there(facts, folder, "") || is_there(facts, folder, "/../lib/denoised"))
        return true;
    snprintf(facts->why, sizeof facts->why,
             "no " DN_BACKEND_FILE
             " in %.200s, nor in its ../lib/denoised: this is an installation for CPUs; build where nvcc is (make build "
             "install), or name the library's folder in DENOISED_BACKEND_DIR",
             folder);
    return false;
}

/* dlopen's reason, with the packages where it is a library of NVIDIA's. */
static void say_not_opened(dn_gpu_facts *facts, const char *reason)
{
    for (size_t i = 0; i < sizeof NEEDED / sizeof NEEDED[0]; i++)
        if (strncmp(reason, NEEDED[i].file, strlen(NEEDED[i].file)) == 0) {
            snprintf(facts->why, sizeof facts->why,
                     "%s is missing: install %s (NVIDIA's apt) or %s (pip); where it lies elsewhere, name its folder in LD_LIBRARY_PATH",
                     NEEDED[i].file, NEEDED[i].apt, NEEDED[i].pip);
            return;
        }
    snprintf(facts->why, sizeof facts->why, "%.200s cannot be opened: %.250s", facts->library, reason);
}

/* What differs between the library's build and this one; NULL: nothing. */
static const char *differs(const dn_backend_library *library, char *text, size_t bytes)
{
    static const uint32_t sizes[] = DN_BACKEND_SIZES;
    if (library->abi != DN_BACKEND_ABI)
        snprintf(text, bytes, "its interface is number %u, this program's %u", library->abi, DN_BACKEND_ABI);
    else if (library->bytes != sizeof *library || memcmp(library->sizes, sizes, sizeof sizes) != 0)
        snprintf(text, bytes, "its structures have other sizes");
    else if (strncmp(library->sources, DN_SOURCES, sizeof library->sources) != 0)
        snprintf(text, bytes, "it was built from sources %.23s, this program from %s", library->sources, DN_SOURCES);
    else
        return NULL;
    return text;
}

const dn_backend_library *dn_gpu_library_open(dn_gpu_facts *facts, const char *forced)
{
    dn_backend_library_function *function = NULL;
    char text[128];
    if (!find_library(facts, forced))
        return NULL;
    void *handle = dlopen(facts->library, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == NULL) {
        say_not_opened(facts, dlerror());
        return NULL;
    }
    void *address = dlsym(handle, DN_BACKEND_SYMBOL);
    memcpy(&function, &address, sizeof address);
    if (function == NULL) {
        snprintf(facts->why, sizeof facts->why, "%.300s is not the CUDA library of denoised: it has no " DN_BACKEND_SYMBOL, facts->library);
        return NULL;
    }
    const dn_backend_library *library = function();
    const char *other = library != NULL ? differs(library, text, sizeof text) : "it says nothing of itself";
    if (other != NULL) {
        snprintf(facts->why, sizeof facts->why, "%.200s is of another build: %s; install program and library of one build", facts->library,
                 other);
        return NULL;
    }
    facts->emulated = forced != NULL && dlsym(handle, DN_BACKEND_EMULATED_SYMBOL) != NULL;
    return library;
}
