-- When a job is of no use any more, in wall-clock milliseconds; NULL: never.
ALTER TABLE job ADD COLUMN deadline_ms INTEGER;
CREATE INDEX job_deadline ON job(deadline_ms) WHERE state = 0 AND deadline_ms IS NOT NULL;
