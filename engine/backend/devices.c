/* Names of devices to devices; see devices.h.
 *
 * Invariant: `gpu` is written once, by whoever asks first, and only read ever after. */
#include "backend/devices.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu.h"

#define NAMES "auto, cpu, cuda, cuda:N"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static dn_gpu_facts gpu;

/* Cards that no driver has told of (an emulated GPU's) are taken to be good. */
static bool card_is_able(uint32_t index)
{
    return gpu.emulated || gpu.cards[index].major >= DN_CUDA_CAPABILITY_MIN;
}

/* The driver first: what it says is nearer to the cause than what the library's absence says. Only a library that DENOISED_BACKEND_DIR
 * names is opened before it, because the tests' has no driver. */
static void look(void)
{
    const char *forced = secure_getenv("DENOISED_BACKEND_DIR");
    const dn_backend_library *library = NULL;
    char why[sizeof gpu.why] = "";
    if (forced != NULL && forced[0] == '\0')
        forced = NULL;
    if (forced != NULL) {
        library = dn_gpu_library_open(&gpu, forced);
        memcpy(why, gpu.why, sizeof why);
    }
    if (!gpu.emulated) {
        dn_gpu_driver_probe(&gpu);
        if (gpu.why[0] != '\0') {
            size_t used = strlen(gpu.why);
            if (forced != NULL && library == NULL)
                snprintf(gpu.why + used, sizeof gpu.why - used, "; and %s", why);
            return;
        }
        if (forced == NULL)
            library = dn_gpu_library_open(&gpu, NULL);
        else
            memcpy(gpu.why, why, sizeof why);
    }
    if (library == NULL)
        return;
    int count = library->device_count(gpu.why, sizeof gpu.why);
    if (count < 1) {
        if (gpu.why[0] == '\0')
            snprintf(gpu.why, sizeof gpu.why, "the CUDA library finds no GPU: look at nvidia-smi");
        return;
    }
    if (gpu.emulated || (uint32_t)count < gpu.card_count)
        gpu.card_count = count < (int)DN_DEVICES_MAX ? (uint32_t)count : DN_DEVICES_MAX;
    gpu.why[0] = '\0';
    gpu.backend = library->backend;
}

bool dn_device_may_be_gpu(void)
{
    const char *forced = secure_getenv("DENOISED_BACKEND_DIR");
    return (forced != NULL && forced[0] != '\0') || dn_gpu_driver_installed();
}

const dn_gpu_facts *dn_gpu_facts_get(void)
{
    pthread_once(&once, look);
    return &gpu;
}

static void take_cpu(dn_device_choice *out)
{
    *out = (dn_device_choice){.backend = dn_backend_cpu()};
    snprintf(out->name, sizeof out->name, "cpu");
}

static dn_status take_gpu(dn_device_choice *out, uint32_t index, dn_error *error)
{
    const dn_gpu_facts *facts = dn_gpu_facts_get();
    if (facts->backend == NULL)
        return dn_fail(error, DN_UNSUPPORTED, "no GPU can be used: %s", facts->why);
    if (index >= facts->card_count)
        return dn_fail(error, DN_UNSUPPORTED, "there is no cuda:%u: this machine has %u GPU%s, from cuda:0 on", index, facts->card_count,
                       facts->card_count == 1 ? "" : "s");
    if (!card_is_able(index))
        return dn_fail(error, DN_UNSUPPORTED, "cuda:%u (%s) has compute capability %u.%u, and %u.0 is needed", index,
                       facts->cards[index].name, facts->cards[index].major, facts->cards[index].minor, DN_CUDA_CAPABILITY_MIN);
    *out = (dn_device_choice){.backend = facts->backend, .index = index};
    snprintf(out->name, sizeof out->name, "cuda:%u", index);
    return DN_OK;
}

/* The first GPU that is able, or the CPU and the reason. */
static void take_any(dn_device_choice *out, char *why, size_t why_bytes)
{
    const dn_gpu_facts *facts = dn_gpu_facts_get();
    dn_error error = {.status = DN_OK, .message = ""};
    uint32_t first = 0;
    while (first + 1 < facts->card_count && !card_is_able(first))
        first++;
    bool silent = facts->backend == NULL && !facts->driver && !dn_device_may_be_gpu();
    bool taken = take_gpu(out, first, &error) == DN_OK;
    if (!taken)
        take_cpu(out);
    if (why != NULL)
        snprintf(why, why_bytes, "%s", taken || silent ? "" : error.message);
}

/* "cuda", "cuda:N": its index; false: it is neither. */
static bool parse_gpu(const char *name, uint32_t *index)
{
    if (strncmp(name, "cuda", 4) != 0 || (name[4] != '\0' && name[4] != ':'))
        return false;
    const char *digits = name + 5;
    size_t length = name[4] == ':' ? strspn(digits, "0123456789") : 0;
    *index = 0;
    if (name[4] == '\0')
        return true;
    if (length < 1 || length > 4 || digits[length] != '\0')
        return false;
    *index = (uint32_t)strtoul(digits, NULL, 10);
    return true;
}

static bool is_cpu(const char *name)
{
    return name == NULL || name[0] == '\0' || strcmp(name, "cpu") == 0;
}

static dn_status check_name(const char *name, dn_error *error)
{
    uint32_t index;
    return is_cpu(name) || strcmp(name, "auto") == 0 || parse_gpu(name, &index)
               ? DN_OK
               : dn_fail(error, DN_INVALID, "device \"%.40s\" is none of " NAMES, name);
}

dn_status dn_device_choose(dn_device_choice *out, const char *name, char *why, size_t why_bytes, dn_error *error)
{
    uint32_t index = 0;
    dn_status status = check_name(name, error);
    if (why != NULL && why_bytes > 0)
        why[0] = '\0';
    if (status != DN_OK)
        return status;
    if (!is_cpu(name) && parse_gpu(name, &index))
        return take_gpu(out, index, error);
    if (is_cpu(name))
        take_cpu(out);
    else
        take_any(out, why, why_bytes);
    return DN_OK;
}

/* The next name of a list into name[16]; *rest moves behind it. False: the list is over. A name that is too long is cut, and so none. */
static bool next_name(const char **rest, char name[16])
{
    if (*rest == NULL)
        return false;
    size_t length = strcspn(*rest, ",");
    snprintf(name, 16, "%.*s", (int)length, *rest);
    *rest = (*rest)[length] == ',' ? *rest + length + 1 : NULL;
    return true;
}

/* Of a list: each a GPU's name, none twice; "cuda" is cuda:0. */
static dn_status check_list(const char *names, dn_error *error)
{
    uint32_t seen[DN_DEVICES_MAX], count = 0, index = 0;
    char name[16];
    for (const char *rest = names; next_name(&rest, name); count++) {
        if (is_cpu(name) || strcmp(name, "auto") == 0 || strcmp(name, "all") == 0)
            return dn_fail(error, DN_INVALID, "a list of devices has GPUs alone, such as cuda:0,cuda:1; not \"%s\"", name);
        if (!parse_gpu(name, &index))
            return dn_fail(error, DN_INVALID, "device \"%s\" is none of " NAMES, name);
        if (count == DN_DEVICES_MAX)
            return dn_fail(error, DN_INVALID, "a list of devices has at most %u", DN_DEVICES_MAX);
        for (uint32_t i = 0; i < count; i++)
            if (seen[i] == index)
                return dn_fail(error, DN_INVALID, "cuda:%u is named twice", index);
        seen[count] = index;
    }
    return DN_OK;
}

dn_status dn_device_names_check(const char *names, dn_error *error)
{
    if (names != NULL && strchr(names, ',') != NULL)
        return check_list(names, error);
    if (names != NULL && strcmp(names, "all") == 0)
        return DN_OK;
    return check_name(names, error);
}

static dn_status take_every_gpu(dn_device_choice out[DN_DEVICES_MAX], uint32_t *count, dn_error *error)
{
    dn_status status = DN_OK;
    uint32_t cards = dn_gpu_facts_get()->card_count;
    for (uint32_t i = 0; status == DN_OK && (i == 0 || i < cards); i++)
        if ((status = take_gpu(&out[i], i, error)) == DN_OK)
            *count = i + 1;
    return status;
}

dn_status dn_device_choose_all(dn_device_choice out[DN_DEVICES_MAX], uint32_t *count, const char *names, char *why, size_t why_bytes,
                               dn_error *error)
{
    char name[16];
    *count = 0;
    if (why != NULL && why_bytes > 0)
        why[0] = '\0';
    dn_status status = dn_device_names_check(names, error);
    if (status == DN_OK && names != NULL && strcmp(names, "all") == 0)
        return take_every_gpu(out, count, error);
    if (status == DN_OK && (names == NULL || strchr(names, ',') == NULL)) {
        status = dn_device_choose(&out[0], names, why, why_bytes, error);
        *count = status == DN_OK;
        return status;
    }
    for (const char *rest = names; status == DN_OK && next_name(&rest, name);)
        if ((status = dn_device_choose(&out[*count], name, NULL, 0, error)) == DN_OK)
            (*count)++;
    return status;
}
