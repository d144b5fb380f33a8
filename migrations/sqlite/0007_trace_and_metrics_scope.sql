-- The trace that a job belongs to: "<trace id>-<flags>" of the request's traceparent.
ALTER TABLE job ADD COLUMN trace TEXT CHECK(length(trace) = 35);

-- A scope more: 16, the daemon's numbers. SQLite cannot change a CHECK, so the table is made anew.
CREATE TABLE api_key_new(
  number TEXT PRIMARY KEY,
  hash BLOB NOT NULL CHECK(length(hash) = 32),
  client TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  revoked_ms INTEGER,
  scopes INTEGER NOT NULL DEFAULT 3 CHECK(scopes BETWEEN 1 AND 31),
  rate REAL CHECK(rate > 0),
  pending_jobs INTEGER CHECK(pending_jobs > 0),
  budget REAL CHECK(budget > 0)
) STRICT, WITHOUT ROWID;
INSERT INTO api_key_new(number,hash,client,created_ms,revoked_ms,scopes,rate,pending_jobs,budget)
  SELECT number,hash,client,created_ms,revoked_ms,scopes,rate,pending_jobs,budget FROM api_key;
DROP TABLE api_key;
ALTER TABLE api_key_new RENAME TO api_key;
