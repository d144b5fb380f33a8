/* What the log says of jobs while they run: one search for a job's id finds its story, from "job accepted" (submission.c) to its end. */
#include "base/clock.h"
#include "server/dispatcher_internal.h"
#include "server/log.h"

static void begin(log_line *line, const store_job *job, const char *what)
{
    char trace[33];
    api_trace_id(trace, job->trace);
    log_begin(line, LOG_INFO, "jobs", "%s", what);
    log_text(line, "job", job->id);
    log_text(line, "client", job->client);
    log_text(line, "model", job->model);
    log_integer(line, "n", job->n);
    log_integer(line, "attempt", job->attempt);
    log_text(line, "trace_id", trace);
}

uint64_t job_steps_done(const running_job *job)
{
    uint64_t steps = 0;
    for (uint32_t i = 0; i < job->n; i++)
        steps += job->lanes[i].steps_done;
    return steps;
}

void job_log_started(const running_job *job)
{
    log_line line;
    begin(&line, &job->job, "job started");
    log_number(&line, "waited_seconds", job_waited(job));
    log_end(&line);
}

void job_log_ended(const store_job *job, const char *state, const char *error_code, uint64_t steps)
{
    const int64_t milliseconds = dn_wall_ms() - job->created_ms;
    log_line line;
    begin(&line, job, "job ended");
    log_text(&line, "state", state);
    log_text(&line, "code", error_code);
    log_integer(&line, "steps", (long long)steps);
    log_number(&line, "seconds", milliseconds > 0 ? (double)milliseconds / 1000 : 0);
    log_end(&line);
}

void job_log_requeued(const running_job *job)
{
    log_line line;
    begin(&line, &job->job, "job goes back to the queue");
    log_text(&line, "reason", job->reason);
    log_integer(&line, "steps", (long long)job_steps_done(job));
    log_end(&line);
}
