/* Names of modules, and the end of a plan. Owns nothing; any thread. */
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

dn_status dn_plan_finish(dn_plan **out, dn_plan_builder *builder, dn_value output, const char *config_path, dn_error *error)
{
    dn_error reason = {DN_OK, ""};
    dn_status status = dn_plan_end(out, builder, output, &reason);
    return status == DN_OK ? DN_OK : dn_fail(error, status, "%s: %.400s", config_path, reason.message);
}
