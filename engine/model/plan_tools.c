/* Names of modules, layers of one call, and the end of a plan. Owns nothing; any thread. */
#include "model/plan_tools.h"

#include <stdarg.h>
#include <stdio.h>

dn_module_name dn_module_named(const char *format, ...)
{
    dn_module_name name;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    return name;
}

dn_value dn_plan_dense(dn_plan_builder *builder, dn_value in, dn_module_name module, uint32_t out_channels, dn_module_name name,
                       dn_activation activation, dn_value residual)
{
    const char *modules[] = {module.text};
    dn_linear_options options = DN_LINEAR_INIT;
    options.modules = modules;
    options.name = name.text;
    options.out_channels = out_channels;
    options.activation = activation;
    options.residual = residual;
    return dn_plan_linear(builder, in, &options);
}

dn_value dn_plan_pointwise(dn_plan_builder *builder, dn_value in, const char *module, const char *name, uint32_t out_channels,
                           dn_value residual)
{
    dn_conv_options options = {.module = module,
                               .name = name,
                               .out_channels = out_channels,
                               .kernel = 1,
                               .stride = 1,
                               .row_bias = DN_NONE,
                               .residual = residual,
                               .scale = 1.0f};
    return dn_plan_conv(builder, in, &options);
}

dn_value dn_plan_self_attention(dn_plan_builder *builder, dn_value in, const char *module, uint32_t heads, bool no_bias)
{
    dn_module_name q = dn_module_named("%s.to_q", module), k = dn_module_named("%s.to_k", module), v = dn_module_named("%s.to_v", module),
                   name = dn_module_named("%s.to_q+to_k+to_v", module);
    const char *stacked[] = {q.text, k.text, v.text};
    dn_linear_options project = DN_LINEAR_INIT;
    project.modules = stacked;
    project.module_count = 3;
    project.name = name.text;
    project.out_channels = 3 * dn_plan_shape(builder, in).c;
    project.no_bias = no_bias;
    dn_value qkv = dn_plan_linear(builder, in, &project);
    return dn_plan_attention(builder, qkv, dn_module_named("%s.attention", module).text, heads);
}

dn_status dn_plan_finish(dn_plan **out, dn_plan_builder *builder, dn_value output, const char *config_path, dn_error *error)
{
    dn_error reason = {DN_OK, ""};
    dn_status status = dn_plan_end(out, builder, output, &reason);
    return status == DN_OK ? DN_OK : dn_fail(error, status, "%s: %.400s", config_path, reason.message);
}
