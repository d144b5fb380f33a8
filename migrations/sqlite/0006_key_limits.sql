-- What a key may do, as bits (1 submit, 2 read, 4 read-all, 8 admin), and how much of it; NULL: as much as anybody.
ALTER TABLE api_key ADD COLUMN scopes INTEGER NOT NULL DEFAULT 3 CHECK(scopes BETWEEN 1 AND 15);
ALTER TABLE api_key ADD COLUMN rate REAL CHECK(rate > 0);
ALTER TABLE api_key ADD COLUMN pending_jobs INTEGER CHECK(pending_jobs > 0);
ALTER TABLE api_key ADD COLUMN budget REAL CHECK(budget > 0);
