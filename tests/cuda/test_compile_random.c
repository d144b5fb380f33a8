/* Plans by chance, compiled for the GPU every way and interpreted, against the CPU back end. */
#include "tests/cuda/compile_check.h"
#include "tests/cuda/random_plan.h"

#define PLANS 400
/* Norms of few channels, one upon another, magnify rounding. */
#define RANDOM_ERROR_MAX 2e-4

static uint32_t absorbed_biases, absorbed_gates, views; /* what rules have been met */

static void count_fusions(const dn_plan *plan)
{
    dn_cuda_compiled *compiled = NULL;
    dn_cuda_compile_options options = {.type = DN_CUDA_BF16};
    if (dn_cuda_compile(&compiled, plan, &options, NULL) != DN_OK)
        return;
    for (uint32_t s = 0; s < compiled->step_count; s++) {
        absorbed_biases += compiled->steps[s].kind == DN_CUDA_STEP_GROUP_NORM && compiled->steps[s].in[2] != DN_NONE;
        absorbed_gates += compiled->steps[s].kind == DN_CUDA_STEP_LAYER_NORM && compiled->steps[s].out[1] != DN_NONE;
    }
    for (dn_cuda_slot s = 0; s < compiled->slot_count; s++)
        views += compiled->slots[s].base != s && compiled->slots[s].value != DN_NONE;
    dn_cuda_compiled_free(compiled);
}

static void plans_by_chance(void)
{
    for (int i = 0; i < test_rounds(PLANS) && !test_failed; i++) {
        char name[64];
        dn_error error = {DN_OK, ""};
        snprintf(name, sizeof name, "plan %d (state %u)", i, harness_state);
        dn_plan *plan = draw_plan(draw(2, 40), &error);
        CHECK_MSG(plan != NULL, "%s: %s", name, error.message);
        dn_weights *weights = draw_weights(plan);
        check_plan(name, plan, weights, RANDOM_ERROR_MAX);
        count_fusions(plan);
        dn_weights_free(weights);
        dn_plan_free(plan);
    }
}

/* Chance has not left a rule out. */
static void every_rule_was_met(void)
{
    if (test_rounds(PLANS) < PLANS)
        SKIP("fewer plans than usual");
    CHECK_MSG(absorbed_biases > 5 && absorbed_gates > 5 && views > 20, "%u row biases, %u gates, %u views", absorbed_biases, absorbed_gates,
              views);
}

int main(void)
{
    RUN(plans_by_chance);
    RUN(every_rule_was_met);
    return test_end();
}
