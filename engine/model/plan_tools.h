/* What the files that write networks share: names of modules made from pieces, layers of one call, and the end of a plan. Private to
 * this folder. */
#ifndef DN_MODEL_PLAN_TOOLS_H
#define DN_MODEL_PLAN_TOOLS_H

#include "plan/plan.h"

#define DN_MODULE_NAME_BYTES 128

/* Returned by value, so that a name lives as long as the statement that uses it. */
typedef struct dn_module_name {
    char text[DN_MODULE_NAME_BYTES];
} dn_module_name;

dn_module_name dn_module_named(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* act(MODULE . in + residual) of every pixel; residual: DN_NONE, or of the answer's shape. */
dn_value dn_plan_dense(dn_plan_builder *builder, dn_value in, dn_module_name module, uint32_t out_channels, dn_module_name name,
                       dn_activation activation, dn_value residual);
/* A 1x1 convolution; name NULL: module. */
dn_value dn_plan_pointwise(dn_plan_builder *builder, dn_value in, const char *module, const char *name, uint32_t out_channels,
                           dn_value residual);
/* Attention over all pixels by MODULE.to_q, .to_k and .to_v, without what comes before and after. */
dn_value dn_plan_self_attention(dn_plan_builder *builder, dn_value in, const char *module, uint32_t heads, bool no_bias);

/* Ends the plan with `output` as its answer; a refusal begins with the path of the configuration that asked for it. */
dn_status dn_plan_finish(dn_plan **out, dn_plan_builder *builder, dn_value output, const char *config_path, dn_error *error);

#endif
