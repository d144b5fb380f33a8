/* Steps that are made twice: an image goes on from its last snapshot, and what came after that is lost with the worker that made it.
 *
 * What a job had reached outlives the job's stay here, since one that is suspected goes back to the queue in between. What was lost
 * with an earlier daemon is not known, and not counted. The dispatcher's thread. */
#include <stdio.h>
#include <string.h>

#include "server/dispatcher_internal.h"

void dispatcher_note_reached(dispatcher *d, const running_job *job, const worker_side *w)
{
    for (uint32_t i = 0; i < job->n; i++) {
        if (job->lanes[i].place != PLACE_SENT || job->lanes[i].worker != w || !job->lanes[i].steps_done)
            continue;
        reached_lane *lane = &d->reached[d->reached_count++ % DISPATCHER_REACHED_MAX];
        *lane = (reached_lane){.index = i, .steps = job->lanes[i].steps_done};
        snprintf(lane->job, sizeof lane->job, "%s", job->job.id);
    }
}

void dispatcher_note_redone(dispatcher *d, const char *job_id, uint32_t index, uint32_t resumed_at)
{
    const uint64_t kept = d->reached_count < DISPATCHER_REACHED_MAX ? d->reached_count : DISPATCHER_REACHED_MAX;
    for (uint64_t i = 0; i < kept; i++) {
        reached_lane *lane = &d->reached[i];
        if (lane->index != index || strcmp(lane->job, job_id) != 0)
            continue;
        if (lane->steps > resumed_at)
            metrics_add(d->options.metrics, METRIC_STEPS_REDONE, lane->steps - resumed_at);
        lane->steps = 0;
    }
}
