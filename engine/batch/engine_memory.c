/* What an engine takes of memory. Pure; any thread. */
#include "batch/loaded_engine.h"

static size_t network_bytes(const dn_engine *engine, const dn_network *network, const dn_model *model)
{
    if (model == NULL)
        return 0;
    return network != NULL ? engine->backend->network_bytes(network)
                           : engine->backend->packed_bytes(engine->device, model->plan, engine->precision);
}

size_t dn_engine_weight_bytes(const dn_engine *engine)
{
    return network_bytes(engine, engine->network, engine->model) + network_bytes(engine, engine->guide, engine->guide_model);
}

size_t dn_engine_workspace_bytes(const dn_engine *engine, uint32_t rows)
{
    size_t bytes = 0;
    if (engine->network != NULL)
        bytes += engine->backend->workspace_bytes(engine->network, rows, false);
    if (engine->guide != NULL)
        bytes += engine->backend->workspace_bytes(engine->guide, rows, false);
    return bytes;
}

size_t dn_engine_condition_bytes(const dn_engine *engine, uint32_t rows)
{
    size_t bytes = 0;
    if (engine->network != NULL)
        bytes += engine->backend->condition_bytes(engine->network, rows);
    if (engine->guide != NULL)
        bytes += engine->backend->condition_bytes(engine->guide, rows);
    return bytes;
}
