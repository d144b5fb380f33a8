/* Late results: what the owner of an earlier claim would still say if it lived. None of it may count. */
#include <string.h>

#include "tests/sim/world.h"

/* A job that runs, and not for the first time. */
static const ledger_job *claimed_again(int64_t *token)
{
    for (size_t i = 0; i < ledger_count; i++) {
        *token = ledger[i].known == KNOWN_NOT ? 0 : oracle_running(ledger[i].id);
        if (*token > 1)
            return &ledger[i];
    }
    return NULL;
}

void late_results(void)
{
    static const store_op ops[] = {STORE_IMAGE, STORE_FAIL, STORE_REQUEUE, STORE_CANCELED_DONE};
    for (unsigned tries = 0; tries < 40; tries++) {
        sim_sleep(0.02);
        const unsigned life = client_enter();
        int64_t token = 0;
        const ledger_job *job = claimed_again(&token);
        if (job) {
            store_request *r = store_request_create(ops[sim_below(4)], NULL, NULL);
            memcpy(r->id, job->id, sizeof r->id);
            r->token = token - 1;
            r->base_path = "";
            snprintf(r->error_code, sizeof r->error_code, "engine");
            snprintf(r->reason, sizeof r->reason, "shutdown");
            snprintf(r->image.file, sizeof r->image.file, "%s-0-%lld.png", job->id, (long long)r->token);
            sim_count_one(COUNT_LATE_RESULTS);
            if (client_call(r) == STORE_OK)
                sim_wrong("a late result about job %s counts", job->id);
            store_request_free(r);
        }
        client_leave(life);
    }
}
