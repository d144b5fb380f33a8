/* What the builder's files share: appending to a plan, and the builder's one remembered failure. */
#ifndef DN_PLAN_BUILD_H
#define DN_PLAN_BUILD_H

#include "plan/plan.h"

#define DN_PLAN_CHANNELS_MAX 65536u /* four stacked outputs of DN_CHANNELS_MAX */

/* Remembers the first failure; returns DN_NONE so that a builder can return it in turn. */
uint32_t dn_build_fail(dn_plan_builder *builder, dn_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* True when the builder is well and `value` is one of its values; fails the builder otherwise. */
bool dn_build_has(dn_plan_builder *builder, dn_value value, const char *what);

/* Appends a value, checking its shape. */
dn_value dn_build_value(dn_plan_builder *builder, dn_shape shape, uint32_t producer);

/* Appends *node with a new output of `shape`; copies its name. Returns the output. */
dn_value dn_build_node(dn_plan_builder *builder, const dn_node *node, const char *name, dn_shape shape);

/* A node with every optional field absent and every factor neutral. */
dn_node dn_build_blank(dn_node_kind kind, dn_value in);

/* An optional input that must have the given shape when present; true when it is absent or right, else the builder fails. */
bool dn_build_fits(dn_plan_builder *builder, dn_value value, dn_shape shape, const char *name, const char *role);

/* True when `vector` is a vector with `count` elements from `offset` on; fails the builder otherwise. */
bool dn_build_holds(dn_plan_builder *builder, dn_value vector, uint32_t offset, uint32_t count, const char *name, const char *role);

/* Weight MODULE.SUFFIX of several modules stacked along dimension 0. */
dn_weight dn_build_module_weight(dn_plan_builder *builder, const char *const *modules, uint32_t count, const char *suffix, uint32_t rank,
                                 const uint32_t *dims);

#endif
