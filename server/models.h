/* The registry of models: name, folder, state, and the description the worker gave (or the store remembers). Read-mostly;
 * lookups hand out descriptions that live as long as the registry (old ones are kept until the end: only a changed folder makes a new one). */
#ifndef SERVER_MODELS_H
#define SERVER_MODELS_H

#include "api/generate_request.h"
#include "api/model_description.h"
#include "server/tick_table.h"

typedef enum model_state { MODEL_UNLOADED, MODEL_LOADING, MODEL_READY, MODEL_FAILED } model_state;

typedef struct models models;

dn_status models_create(models **out, dn_error *error);
void models_free(models *m);
/* In configuration order; the first is the default. */
dn_status models_add(models *m, const char *name, const char *folder, dn_error *error);
size_t models_count(const models *m);
const char *models_name(const models *m, size_t index);
const char *models_folder(const models *m, size_t index);
void models_set_state(models *m, const char *name, model_state state, const char *error);
model_state models_state(models *m, const char *name, char *error, size_t error_bytes);
/* Takes ownership; by description->name. False: nothing new, a model that goes out of memory and comes back is described again and again. */
bool models_describe(models *m, api_model *description);
const api_model *models_lookup(void *models_pointer, const char *name);   /* an api_model_lookup; NULL name: the default */
bool models_known(const models *m, const char *name);
const char *models_state_name(model_state state);
/* What ticks of a model in memory take; rows_max 0: it is not in memory. */
void models_set_batch(models *m, const char *name, const tick_table *table, uint32_t rows_max);
bool models_batch(models *m, const char *name, api_batch *out);           /* false: nothing is known */
/* What it takes of the worker's memory, weights and workspaces; 0: it is not there. */
void models_set_bytes(models *m, const char *name, uint64_t bytes);
uint64_t models_bytes(models *m, const char *name);

#endif
