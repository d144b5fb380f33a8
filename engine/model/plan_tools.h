/* What the files that write networks share: names of modules made from pieces, and the end of a plan. Private to this folder. */
#ifndef DN_MODEL_PLAN_TOOLS_H
#define DN_MODEL_PLAN_TOOLS_H

#include "plan/plan.h"

#define DN_MODULE_NAME_BYTES 128

/* Returned by value, so that a name lives as long as the statement that uses it. */
typedef struct dn_module_name {
    char text[DN_MODULE_NAME_BYTES];
} dn_module_name;

dn_module_name dn_module_named(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the plan with `output` as its answer; a refusal begins with the path of the configuration that asked for it. */
dn_status dn_plan_finish(dn_plan **out, dn_plan_builder *builder, dn_value output, const char *config_path, dn_error *error);

#endif
