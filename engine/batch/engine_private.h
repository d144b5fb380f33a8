/* Opening an engine, shared by its files. */
#ifndef DN_BATCH_ENGINE_PRIVATE_H
#define DN_BATCH_ENGINE_PRIVATE_H

#include "batch/loaded_engine.h"

/* Which rows of the class table a request may name, and which one is the null class. */
dn_status dn_engine_settle_classes(dn_engine *engine, dn_error *error);
/* What a request that says nothing gets. Wants classes, training and scheduler settled. */
dn_status dn_engine_settle_defaults(dn_engine *engine, dn_error *error);
/* guidance_methods and the table of fields. Again whenever guide or classifier change. */
void dn_engine_settle_fields(dn_engine *engine);
/* device_text and build (engine_identity.c). Wants device, folder, model, guide and codec; a described engine has no build. */
dn_status dn_engine_settle_build(dn_engine *engine, bool described, dn_error *error);
/* Something else that its pictures come from, after the build was settled. */
void dn_engine_add_to_build(dn_engine *engine, const char *label, const char *sha256);

#endif
