/* The running batch's inside, shared by its files. */
#ifndef DN_BATCH_BATCH_PRIVATE_H
#define DN_BATCH_BATCH_PRIVATE_H

#include "batch/lane.h"

struct dn_batch {
    dn_engine *engine; /* borrowed; outlives the batch */
    dn_workspace *workspace, *guide_workspace; /* of the engine's network; of its guide, NULL where there is none */
    uint32_t rows_max;
    uint32_t lane_count;
    dn_lane *lanes[DN_LANES_MAX]; /* in flight, by rising id */
    uint32_t spare_count;
    dn_lane *spares[DN_LANES_MAX]; /* with their registers, for the next admission */
    dn_lane_id cursor; /* the last lane that was served: the turn goes on behind it */
    dn_row rows[DN_RUN_COUNT][DN_BATCH_ROWS_MAX]; /* of the tick in progress, by what runs them */
    dn_program programs[DN_LANES_MAX];
    float *host; /* [elements]: one image on its way out */
};

dn_lane *dn_batch_find(const dn_batch *batch, dn_lane_id id); /* NULL: no such lane */
bool dn_batch_has_room(const dn_batch *batch, const dn_lane *lane); /* whether its rows ever fit a tick */
/* A lane with registers, not yet in flight; and back. */
dn_status dn_batch_take_lane(dn_batch *batch, dn_lane_id id, dn_lane **out, dn_error *error);
void dn_batch_return_lane(dn_batch *batch, dn_lane *lane);
void dn_batch_insert(dn_batch *batch, dn_lane *lane);

#endif
