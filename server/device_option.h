/* --device, --precision, --fast and --plan-cache of the commands that run networks in their own process: from words to the options of an
 * engine. One thread. */
#ifndef DN_SERVER_DEVICE_OPTION_H
#define DN_SERVER_DEVICE_OPTION_H

#include "backend/devices.h"
#include "batch/loaded_engine.h"
#include "server/options.h"

typedef struct device_option {
    const char *device, *precision, *plan_cache; /* as given; NULL: they were not */
    bool fast;
    /* Settled: */
    dn_device_choice choice;
    char cache[1024]; /* of the user; "": none */
} device_option;

#define DN_DEVICE_HELP "cpu, cuda, cuda:N; auto: a GPU if there is one"
#define DN_PRECISION_HELP "of large products: auto, fp32, bf16, fp16"
#define DN_FAST_HELP "GPUs: faster, though bytes may depend on the batch"
#define DN_PLAN_CACHE_HELP "GPUs: where plans, once found, are kept"

/* Rows of an option table, for a device_option; STANDARD, a literal, says which device it is where none is given. */
#define DN_DEVICE_OPTIONS(O, STANDARD)                                                                                                     \
    DN_TEXT_OPTION("device", "NAME", (O).device, DN_DEVICE_HELP " (" STANDARD ")"),                                                        \
        DN_TEXT_OPTION("precision", "NAME", (O).precision, DN_PRECISION_HELP), DN_FLAG_OPTION("fast", (O).fast, DN_FAST_HELP),             \
        DN_TEXT_OPTION("plan-cache", "DIR", (O).plan_cache, DN_PLAN_CACHE_HELP)

/* What --device is where it is not given: $DENOISED_DEVICE, else `otherwise`. */
const char *device_option_standard(const char *otherwise);

/* Chooses the device and fills the engine's options with it, with precision, fast and plan cache (in the user's cache folder where none is
 * given). Where "auto" comes to the CPU though there is a driver, standard error says why. They borrow from *o. */
dn_status device_option_settle(device_option *o, dn_engine_options *engine, const char *command, const char *otherwise, dn_error *error);

#endif
