/* Reads the keys of a component's config.json, with a default for each missing key and one rule per value.
 *
 * Like the plan builder it remembers its first failure, so that a parser reads as a list; values read after it are the
 * defaults. For this room and for diffusion; used by one thread. */
#ifndef DN_MODEL_CONFIG_READER_H
#define DN_MODEL_CONFIG_READER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "plan/plan.h"

typedef struct dn_config_reader {
    const cJSON *json;
    const char *path; /* for messages */
    dn_error error; /* status DN_OK while all is well */
} dn_config_reader;

dn_status dn_config_reader_init(dn_config_reader *reader, const cJSON *json, const char *path, dn_error *error);

/* The member, or NULL when it is missing; a JSON null is returned as such. */
const cJSON *dn_config_item(const dn_config_reader *reader, const char *key);
bool dn_config_is_null(const dn_config_reader *reader, const char *key); /* missing or null */

bool dn_config_bool(dn_config_reader *reader, const char *key, bool fallback);
/* A whole number within low..high; missing (not null) gives the fallback. */
uint32_t dn_config_count(dn_config_reader *reader, const char *key, uint32_t fallback, uint32_t low, uint32_t high);
double dn_config_number(dn_config_reader *reader, const char *key, double fallback, double low, double high);
const char *dn_config_text(dn_config_reader *reader, const char *key, const char *fallback); /* borrowed */

dn_activation dn_config_activation(dn_config_reader *reader); /* act_fn of diffusers' convolutional networks; SiLU where it is missing */

/* Fails with "PATH: key: ...". Only the first failure is kept. */
void dn_config_fail(dn_config_reader *reader, dn_status status, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
dn_status dn_config_reader_end(const dn_config_reader *reader, dn_error *error);

#endif
