/* Facts about the GPUs of this machine (backend/devices.h), with those that each card tells when it is opened. Owns nothing past its call.
 * One thread. */
#include "server/inspect_gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/text.h"
#include "backend/devices.h"

typedef struct card_facts {
    char refusal[DN_DEVICE_WHY_BYTES]; /* why it cannot be used; "": it can */
    char text[192], isa[32], identity[192];
    size_t memory, free_memory; /* bytes; 0: not told */
    bool precisions[DN_PRECISIONS];
} card_facts;

static void look(card_facts *out, uint32_t index)
{
    char name[16];
    dn_device_choice choice;
    dn_device *device = NULL;
    dn_error error = {.status = DN_OK, .message = ""};
    snprintf(name, sizeof name, "cuda:%u", index);
    dn_status status = dn_device_choose(&choice, name, NULL, 0, &error);
    const dn_device_options options = {.index = index};
    if (status == DN_OK)
        status = choice.backend->device_open(&device, &options, &error);
    if (status != DN_OK) {
        snprintf(out->refusal, sizeof out->refusal, "%s", error.message);
        return;
    }
    choice.backend->device_describe(device, out->text, sizeof out->text);
    snprintf(out->isa, sizeof out->isa, "%s", choice.backend->device_isa(device));
    snprintf(out->identity, sizeof out->identity, "%s", choice.backend->device_identity(device));
    if (choice.backend->device_memory != NULL)
        out->memory = choice.backend->device_memory(device, &out->free_memory);
    for (int p = 0; p < DN_PRECISIONS; p++)
        out->precisions[p] = choice.backend->precision_check(device, (dn_precision)p, NULL) == DN_OK;
    choice.backend->device_close(device);
}

/* ---- Print */

static void print_card(const dn_gpu_facts *gpu, const card_facts *card, uint32_t index)
{
    const dn_gpu_card *told = &gpu->cards[index];
    printf("cuda:%-8u ", index);
    if (told->name[0] != '\0')
        printf("%s, compute capability %u.%u, %.1f GiB\n              ", told->name, told->major, told->minor,
               (double)told->memory / (1 << 30));
    if (gpu->backend == NULL) {
        printf("cannot be used: see below\n");
        return;
    }
    if (card->refusal[0] != '\0') {
        printf("cannot be used: %s\n", card->refusal);
        return;
    }
    printf("%s\n              ", card->identity);
    if (card->memory > 0)
        printf("memory %.1f GiB, %.1f free\n              ", (double)card->memory / (1 << 30), (double)card->free_memory / (1 << 30));
    printf("precisions");
    for (int p = 0; p < DN_PRECISIONS; p++)
        if (card->precisions[p])
            printf(" %s%s", dn_precision_name((dn_precision)p), (dn_precision)p == gpu->backend->precision ? " (auto)" : "");
    printf("\n");
}

static void print_text(const dn_gpu_facts *gpu, const card_facts *cards)
{
    if (gpu->emulated)
        printf("driver        none: the library's GPU is emulated, for tests\n");
    else if (gpu->driver_version > 0)
        printf("driver        for CUDA %d.%d (%d.%d is needed)\n", gpu->driver_version / 1000, gpu->driver_version % 1000 / 10,
               DN_CUDA_DRIVER_MIN / 1000, DN_CUDA_DRIVER_MIN % 1000 / 10);
    else
        printf("driver        %s\n", gpu->driver ? "installed, and does not say its version" : "none");
    for (uint32_t i = 0; i < gpu->card_count; i++)
        print_card(gpu, &cards[i], i);
    if (gpu->card_count == 0)
        printf("cards         none\n");
    printf("library       %s\n", gpu->library[0] != '\0' ? gpu->library : "not opened");
    if (gpu->backend == NULL)
        printf("not used      %s\n", gpu->why);
}

static void add_named(api_text *text, const char *name, const char *value)
{
    api_text_format(text, "\"%s\":", name);
    api_text_string(text, value != NULL && value[0] != '\0' ? value : NULL);
}

static void add_bytes(api_text *text, const char *name, size_t bytes)
{
    if (bytes > 0)
        api_text_format(text, ",\"%s\":%zu", name, bytes);
    else
        api_text_format(text, ",\"%s\":null", name);
}

static void add_card(api_text *text, const dn_gpu_facts *gpu, const card_facts *card, uint32_t index)
{
    const dn_gpu_card *told = &gpu->cards[index];
    const char *between = "";
    api_text_format(text, "%s{\"device\":\"cuda:%u\",", index > 0 ? "," : "", index);
    add_named(text, "name", told->name);
    if (told->name[0] != '\0')
        api_text_format(text, ",\"capability\":\"%u.%u\"", told->major, told->minor);
    else
        api_text_add(text, ",\"capability\":null");
    add_bytes(text, "memory", card->memory > 0 ? card->memory : (size_t)told->memory);
    add_bytes(text, "free_memory", card->free_memory);
    api_text_add(text, ",");
    add_named(text, "instruction_set", card->isa);
    api_text_add(text, ",");
    add_named(text, "identity", card->identity);
    api_text_add(text, ",\"precisions\":[");
    for (int p = 0; p < DN_PRECISIONS; p++)
        if (card->precisions[p]) {
            api_text_format(text, "%s\"%s\"", between, dn_precision_name((dn_precision)p));
            between = ",";
        }
    api_text_add(text, "],");
    add_named(text, "not_used", card->refusal);
    api_text_add(text, "}");
}

static char *write_json(const dn_gpu_facts *gpu, const card_facts *cards)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"driver\":");
    api_text_bool(&text, gpu->driver);
    if (gpu->driver_version > 0)
        api_text_format(&text, ",\"driver_cuda\":\"%d.%d\"", gpu->driver_version / 1000, gpu->driver_version % 1000 / 10);
    else
        api_text_add(&text, ",\"driver_cuda\":null");
    api_text_add(&text, ",\"emulated\":");
    api_text_bool(&text, gpu->emulated);
    api_text_add(&text, ",\"cards\":[");
    for (uint32_t i = 0; i < gpu->card_count; i++)
        add_card(&text, gpu, &cards[i], i);
    api_text_add(&text, "],");
    add_named(&text, "library", gpu->library);
    api_text_add(&text, ",\"usable\":");
    api_text_bool(&text, gpu->backend != NULL);
    api_text_add(&text, ",");
    add_named(&text, "not_used", gpu->why);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

dn_status inspect_gpu(bool json, dn_error *error)
{
    const dn_gpu_facts *gpu = dn_gpu_facts_get();
    card_facts cards[DN_DEVICES_MAX] = {{.refusal = ""}};
    for (uint32_t i = 0; gpu->backend != NULL && i < gpu->card_count; i++)
        look(&cards[i], i);
    if (!json) {
        print_text(gpu, cards);
        return DN_OK;
    }
    char *text = write_json(gpu, cards);
    if (text == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    puts(text);
    free(text);
    return DN_OK;
}
