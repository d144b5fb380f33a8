-- A job that ended its worker alone waits before it is tried again: not before this moment, in wall-clock milliseconds. NULL: at once.
-- Delayed rows live apart from the ready ones, so that no claim ever looks at them.
ALTER TABLE job ADD COLUMN run_at_ms INTEGER CHECK(run_at_ms IS NULL OR state = 0);
DROP INDEX job_ready;
DROP INDEX job_ready_model;
CREATE INDEX job_ready ON job(priority, turn, row, state, cost, run_at_ms) WHERE state = 0 AND run_at_ms IS NULL;
CREATE INDEX job_ready_model ON job(model, priority, turn, row) WHERE state = 0 AND run_at_ms IS NULL;
CREATE INDEX job_delayed ON job(run_at_ms, priority, cost) WHERE run_at_ms IS NOT NULL;
