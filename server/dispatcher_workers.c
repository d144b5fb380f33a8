/* What all workers together can do: which take a model's lanes, how a model stands as a whole, what the registry and the gauges show.
 *
 * Invariant: a model has failed only when every worker that somebody still waits for has said so, so that a device which is lost, or one
 * with too little memory, fails no job that another can make. The dispatcher's thread. */
#include "server/dispatcher_internal.h"

bool worker_takes(const worker_side *w, size_t model)
{
    return w->pid && w->hello && !w->retiring && w->models[model].ready;
}

bool worker_hopeless(const worker_side *w)
{
    return !w->ever_ready && w->failures >= DISPATCHER_HOPELESS_STARTS;
}

bool worker_reserved(const dispatcher *d, const worker_side *w)
{
    return d->trial == w;
}

uint32_t worker_ahead(uint32_t rows_max)
{
    return rows_max / 4 > 2 ? rows_max / 4 : 2;
}

bool dispatcher_takes(const dispatcher *d, size_t model)
{
    for (unsigned i = 0; i < d->worker_count; i++)
        if (worker_takes(&d->workers[i], model))
            return true;
    return false;
}

bool dispatcher_any_ready(const dispatcher *d)
{
    for (size_t i = 0; i < models_count(d->options.models); i++)
        if (dispatcher_takes(d, i))
            return true;
    return false;
}

bool dispatcher_model_failed(const dispatcher *d, size_t model)
{
    bool failed = false;
    for (unsigned i = 0; i < d->worker_count; i++) {
        const worker_side *w = &d->workers[i];
        const worker_side_model *said = &w->models[model];
        if (said->told ? !said->failed : !w->spare && !worker_hopeless(w))
            return false;
        failed |= said->failed;
    }
    return failed;
}

double dispatcher_row_seconds(const dispatcher *d, size_t model, uint32_t rows)
{
    double least = 0;
    for (unsigned i = 0; i < d->worker_count; i++) {
        const double seconds = tick_table_seconds(&d->workers[i].tables[model], rows);
        if (seconds > 0 && (least <= 0 || seconds < least))
            least = seconds;
    }
    return least;
}

bool dispatcher_show_model(dispatcher *d, size_t model)
{
    static const int rank[] = {[MODEL_FAILED] = 0, [MODEL_UNLOADED] = 1, [MODEL_LOADING] = 2, [MODEL_READY] = 3};
    models *all = d->options.models;
    const char *name = models_name(all, model);
    const worker_side_model *best = NULL;
    const worker_side *holder = NULL;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < d->worker_count; i++) {
        const worker_side_model *said = &d->workers[i].models[model];
        bytes += said->bytes;
        if (said->batch_rows && !holder)
            holder = &d->workers[i];
        if (said->told && (!best || rank[said->state] > rank[best->state]))
            best = said;
    }
    models_set_bytes(all, name, bytes);
    models_set_batch(all, name, holder ? &holder->tables[model] : NULL, holder ? holder->models[model].batch_rows : 0);
    if (best && best->state == MODEL_FAILED && !dispatcher_model_failed(d, model))
        models_set_state(all, name, MODEL_LOADING, NULL); /* a worker that is still to come may load it */
    else if (best)
        models_set_state(all, name, best->state, best->cause);
    return best != NULL;
}

void dispatcher_show_workers(dispatcher *d)
{
    int64_t there = 0, lanes = 0;
    for (unsigned i = 0; i < d->worker_count; i++) {
        there += d->workers[i].hello;
        lanes += d->workers[i].outstanding_count;
    }
    metrics_set(d->options.metrics, METRIC_WORKERS, there);
    metrics_set(d->options.metrics, METRIC_LANES_RUNNING, lanes);
}
