-- Keys of clients: only a hash is kept. A revoked key stays, so that its number is not given out again.
CREATE TABLE api_key(
  number TEXT PRIMARY KEY,
  hash BLOB NOT NULL CHECK(length(hash) = 32),
  client TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

-- What is to be delivered about jobs that have ended; written in the transaction that ends the job.
CREATE TABLE outbox(
  row INTEGER PRIMARY KEY AUTOINCREMENT,
  job INTEGER NOT NULL REFERENCES job(row) ON DELETE CASCADE,
  url TEXT NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 0 CHECK(attempt >= 0),
  next_ms INTEGER NOT NULL,
  delivered_ms INTEGER,
  last_error TEXT
) STRICT;
CREATE INDEX outbox_due ON outbox(next_ms) WHERE delivered_ms IS NULL;
CREATE INDEX outbox_job ON outbox(job);
