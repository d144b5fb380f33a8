/* Asks NVIDIA's driver what there is, by prototypes of our own: no header or library of CUDA is needed to build this.
 *
 * libcuda.so.1 is found as the system finds libraries and stays open; nothing of it is used but these questions, and no context is made. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "backend/gpu.h"

#define DRIVER_FILE "libcuda.so.1"

/* CUresult and CUdevice are ints, CUdevice_attribute is an enum (CUDA driver API reference). */
#define RESULT_NO_DEVICE 100
#define RESULT_STUB 34
#define RESULT_MISMATCH 803
#define RESULT_NOT_PERMITTED 800
#define ATTRIBUTE_MAJOR 75
#define ATTRIBUTE_MINOR 76

typedef struct driver_calls {
    int (*init)(unsigned flags);
    int (*version)(int *out);
    int (*count)(int *out);
    int (*get)(int *out, int ordinal);
    int (*name)(char *out, int bytes, int device);
    int (*memory)(size_t *out, int device);
    int (*attribute)(int *out, int attribute, int device);
} driver_calls;

/* A function's address: ISO C knows no cast from an object's, POSIX wants it to work. */
static bool find(void *library, const char *name, void *out)
{
    void *address = dlsym(library, name);
    memcpy(out, &address, sizeof address);
    return address != NULL;
}

static bool find_all(driver_calls *out, void *library)
{
    return find(library, "cuInit", &out->init) && find(library, "cuDriverGetVersion", &out->version) &&
           find(library, "cuDeviceGetCount", &out->count) && find(library, "cuDeviceGet", &out->get) &&
           find(library, "cuDeviceGetName", &out->name) && find(library, "cuDeviceTotalMem_v2", &out->memory) &&
           find(library, "cuDeviceGetAttribute", &out->attribute);
}

static void say_failed(dn_gpu_facts *facts, int result)
{
    size_t bytes = sizeof facts->why;
    if (result == RESULT_NO_DEVICE)
        snprintf(facts->why, bytes,
                 "the NVIDIA driver finds no GPU: look at nvidia-smi, at CUDA_VISIBLE_DEVICES, and whether this container "
                 "was given one (--gpus all)");
    else if (result == RESULT_STUB)
        snprintf(facts->why, bytes, DRIVER_FILE " is the CUDA toolkit's stub, no driver: take its folder out of LD_LIBRARY_PATH");
    else if (result == RESULT_MISMATCH)
        snprintf(facts->why, bytes, "the NVIDIA driver's library and kernel module are of different versions: restart this machine");
    else if (result == RESULT_NOT_PERMITTED)
        snprintf(facts->why, bytes, "this user may not use the GPU: look at the permissions of /dev/nvidia*");
    else
        snprintf(facts->why, bytes, "the NVIDIA driver does not start (cuInit: %d): look at nvidia-smi and dmesg", result);
}

static void read_cards(dn_gpu_facts *facts, const driver_calls *calls)
{
    int count = 0;
    if (calls->count(&count) != 0 || count < 1) {
        say_failed(facts, RESULT_NO_DEVICE);
        return;
    }
    for (int i = 0; i < count && i < (int)DN_DEVICES_MAX; i++) {
        dn_gpu_card *card = &facts->cards[i];
        int device = 0, major = 0, minor = 0;
        size_t memory = 0;
        if (calls->get(&device, i) != 0 || calls->name(card->name, sizeof card->name, device) != 0)
            snprintf(card->name, sizeof card->name, "a GPU that does not say its name");
        card->name[sizeof card->name - 1] = '\0';
        (void)calls->memory(&memory, device);
        (void)calls->attribute(&major, ATTRIBUTE_MAJOR, device);
        (void)calls->attribute(&minor, ATTRIBUTE_MINOR, device);
        card->memory = memory;
        card->major = major > 0 ? (uint32_t)major : 0;
        card->minor = minor > 0 ? (uint32_t)minor : 0;
    }
    facts->card_count = count < (int)DN_DEVICES_MAX ? (uint32_t)count : DN_DEVICES_MAX;
}

bool dn_gpu_driver_installed(void)
{
    void *library = dlopen(DRIVER_FILE, RTLD_LAZY | RTLD_LOCAL);
    if (library != NULL)
        dlclose(library);
    return library != NULL;
}

void dn_gpu_driver_probe(dn_gpu_facts *facts)
{
    driver_calls calls;
    void *library = dlopen(DRIVER_FILE, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    facts->why[0] = '\0';
    if (library == NULL) {
        snprintf(facts->why, sizeof facts->why,
                 "no NVIDIA driver is installed (" DRIVER_FILE "): install driver %d or later, or run the "
                 "container with --gpus all",
                 580);
        return;
    }
    facts->driver = true;
    if (!find_all(&calls, library)) {
        snprintf(facts->why, sizeof facts->why, DRIVER_FILE " is no driver of NVIDIA: it lacks cuInit and others");
        return;
    }
    int result = calls.init(0);
    if (calls.version(&facts->driver_version) != 0)
        facts->driver_version = 0;
    if (result != 0) {
        say_failed(facts, result);
        return;
    }
    if (facts->driver_version < DN_CUDA_DRIVER_MIN)
        snprintf(facts->why, sizeof facts->why,
                 "the NVIDIA driver is too old: it supports CUDA %d.%d, and %d.%d is needed (driver 580 or later)",
                 facts->driver_version / 1000, facts->driver_version % 1000 / 10, DN_CUDA_DRIVER_MIN / 1000,
                 DN_CUDA_DRIVER_MIN % 1000 / 10);
    else
        read_cards(facts, &calls);
}
