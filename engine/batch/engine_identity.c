/* What tells one engine's pictures from another's: a hash over everything that may change the bytes of a spec's picture, or of its
 * PNG. It owns nothing; written while an engine opens, on the opening thread. An engine that was only described has none: it has
 * not read the weights that are part of it. */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/sha256.h"
#include "batch/engine_private.h"

#define LINE_BYTES 512

/* One line of the text that is hashed: "LABEL VALUE". */
static void say(dn_sha256 *hash, const char *label, const char *value)
{
    char line[LINE_BYTES];
    int bytes = snprintf(line, sizeof line, "%s %s\n", label, value);
    dn_sha256_update(hash, line, (size_t)bytes < sizeof line ? (size_t)bytes : sizeof line - 1);
}

static void say_program(dn_sha256 *hash, const dn_engine *engine)
{
    char numerics[16];
    snprintf(numerics, sizeof numerics, "%d", DN_NUMERICS_VERSION);
    say(hash, "sources", DN_SOURCES);
    say(hash, "numerics", numerics);
    say(hash, "backend", engine->backend->name);
    say(hash, "isa", engine->backend->device_isa(engine->device));
    if (engine->gpu[0] != '\0') {
        say(hash, "gpu", engine->gpu);
        say(hash, "plan", engine->plan);
        say(hash, "guide plan", engine->guide != NULL ? engine->backend->network_identity(engine->guide) : "");
        say(hash, "batches", engine->fast ? "each its best" : "all alike");
    }
    say(hash, "precision", dn_precision_name(engine->precision));
    say(hash, "libpng", png_get_libpng_ver(NULL));
    say(hash, "zlib", zlibVersion());
}

/* The denoiser's own weights are told apart everywhere (weights_sha256); here is what else pictures come from. */
static dn_status say_folder(dn_sha256 *hash, const dn_engine *engine, dn_error *error)
{
    char *scheduler = engine->folder->scheduler != NULL ? cJSON_PrintUnformatted(engine->folder->scheduler) : NULL;
    if (engine->folder->scheduler != NULL && scheduler == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", engine->folder->scheduler_path);
    char null_row[16];
    snprintf(null_row, sizeof null_row, "%u", engine->null_class);
    say(hash, "config", engine->model->config_sha256);
    say(hash, "null row", null_row);
    dn_sha256_update(hash, "scheduler ", 10);
    if (scheduler != NULL)
        dn_sha256_update(hash, scheduler, strlen(scheduler));
    cJSON_free(scheduler);
    say(hash, "\nvae", engine->codec_sha256);
    say(hash, "vae config", engine->codec_config_sha256);
    say(hash, "decodes", engine->vae_tiling && engine->codec_path != NULL ? "in tiles" : "whole");
    if (engine->guide_model != NULL) {
        say(hash, "guide", engine->guide_model->weights_sha256);
        say(hash, "guide config", engine->guide_model->config_sha256);
    }
    return DN_OK;
}

dn_status dn_engine_settle_build(dn_engine *engine, bool described, dn_error *error)
{
    unsigned char digest[DN_SHA256_BYTES];
    dn_sha256 hash;
    bool plain = engine->precision == DN_PRECISION_FP32;
    snprintf(engine->gpu, sizeof engine->gpu, "%s", engine->backend->device_identity(engine->device));
    snprintf(engine->plan, sizeof engine->plan, "%s", engine->network != NULL ? engine->backend->network_identity(engine->network) : "");
    snprintf(engine->device_text, sizeof engine->device_text, "%s %s%s%s%s", engine->backend->name,
             engine->backend->device_isa(engine->device), plain ? "" : " ", plain ? "" : dn_precision_name(engine->precision),
             engine->fast ? " fast" : "");
    engine->build[0] = '\0';
    if (described)
        return DN_OK;
    dn_sha256_init(&hash);
    say_program(&hash, engine);
    dn_status status = say_folder(&hash, engine, error);
    if (status == DN_OK) {
        dn_sha256_final(&hash, digest);
        dn_sha256_hex(engine->build, digest);
    }
    return status;
}

void dn_engine_add_to_build(dn_engine *engine, const char *label, const char *sha256)
{
    unsigned char digest[DN_SHA256_BYTES];
    dn_sha256 hash;
    if (engine->build[0] == '\0')
        return;
    dn_sha256_init(&hash);
    say(&hash, "build", engine->build);
    say(&hash, label, sha256);
    dn_sha256_final(&hash, digest);
    dn_sha256_hex(engine->build, digest);
}
