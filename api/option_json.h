/* Options of the engine's table on the wire: a value as a member, a rule as what a page builds its form from, and both back. */
#ifndef API_OPTION_JSON_H
#define API_OPTION_JSON_H

#include <cjson/cJSON.h>

#include "api/text.h"
#include "diffusion/options.h"

#define API_ALL_CHOICES UINT32_MAX

/* ,"eta":0.5 */
void api_add_option(api_text *text, dn_option_id id, double value);
/* {"name":...,"type":...,range or choices,"default":...,"help":...}; of the choices, those whose bit is set alone. */
void api_add_option_field(api_text *text, const dn_option_field *field, uint32_t choices);

/* A JSON value of the option's type as the table holds it, NaN for any other. Integers are not told from reals: a caller that has the
 * raw text may. */
double api_option_value(const cJSON *value, dn_option_id id);
/* Reads back what api_add_option_field wrote; false: it did not. */
bool api_read_option_field(dn_option_field *out, const cJSON *object);

#endif
