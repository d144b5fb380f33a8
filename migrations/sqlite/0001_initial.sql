-- The durable queue. States are those of api_state: 0 queued, 1 running, 2 succeeded, 3 failed, 4 canceled.
-- Times are wall-clock milliseconds since 1970; a cost is network rows (n x steps x rows a step).

-- All jobs of one Idempotency-Key. Lives until the last of its jobs is forgotten.
CREATE TABLE idempotency(
  row INTEGER PRIMARY KEY,
  client TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint BLOB NOT NULL CHECK(length(fingerprint) = 32),
  jobs TEXT NOT NULL CHECK(length(jobs) % 26 = 0),         -- ids, 26 characters each
  UNIQUE(client, key)
) STRICT;

CREATE TABLE job(
  row INTEGER PRIMARY KEY AUTOINCREMENT,                    -- order of acceptance; never shown
  id TEXT NOT NULL UNIQUE CHECK(length(id) = 26),
  client TEXT NOT NULL,
  idempotency INTEGER REFERENCES idempotency(row),
  model TEXT NOT NULL,
  request TEXT,                                             -- JSON as shown to the client; gone once expired
  n INTEGER NOT NULL CHECK(n >= 1),
  cost INTEGER NOT NULL CHECK(cost >= 0),
  priority INTEGER NOT NULL CHECK(priority BETWEEN -10 AND 10),
  turn INTEGER NOT NULL CHECK(turn >= 0),                   -- start tag of the fair queue of its priority
  state INTEGER NOT NULL DEFAULT 0 CHECK(state BETWEEN 0 AND 4),
  cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK(cancel_requested IN (0, 1)),
  purge INTEGER NOT NULL DEFAULT 0 CHECK(purge IN (0, 1)),  -- delete its files as soon as it has ended
  expired INTEGER NOT NULL DEFAULT 0 CHECK(expired IN (0, 1)),
  owner TEXT,                                               -- the boot that runs it
  token INTEGER NOT NULL DEFAULT 0,                         -- fencing token: one more at each claim
  attempt INTEGER NOT NULL DEFAULT 0 CHECK(attempt >= 0),
  crashes INTEGER NOT NULL DEFAULT 0 CHECK(crashes >= 0),   -- workers it took down alone
  boots INTEGER NOT NULL DEFAULT 0 CHECK(boots >= 0),       -- daemons that died while it ran
  images_done INTEGER NOT NULL DEFAULT 0 CHECK(images_done BETWEEN 0 AND n),
  created_ms INTEGER NOT NULL,
  started_ms INTEGER,
  finished_ms INTEGER,
  expires_ms INTEGER,
  error_code TEXT,
  error_detail TEXT,
  CHECK((state >= 2) = (finished_ms IS NOT NULL)),
  CHECK((state = 1) = (owner IS NOT NULL)),
  CHECK((state = 3) = (error_code IS NOT NULL)),
  CHECK(state != 2 OR expired = 1 OR images_done = n),
  CHECK(expired = 0 OR state >= 2),
  CHECK((request IS NULL) = (expired = 1))
) STRICT;

-- Claims: partial, so that they stay small however many jobs have ended. State and cost make sums over the queue covered.
CREATE INDEX job_ready ON job(priority, turn, row, state, cost) WHERE state = 0;
CREATE INDEX job_ready_model ON job(model, priority, turn, row) WHERE state = 0;
CREATE INDEX job_running ON job(state) WHERE state = 1;
CREATE INDEX job_pending ON job(client, state) WHERE state < 2;
-- Lists, newest first.
CREATE INDEX job_list ON job(client, created_ms, row);
-- Retention: by age of the end, then tombstones, then what a client asked to delete while it ran.
CREATE INDEX job_ended ON job(finished_ms, row) WHERE state >= 2 AND expired = 0;
CREATE INDEX job_tombstone ON job(expires_ms) WHERE expired = 1;
CREATE INDEX job_purge ON job(row) WHERE purge = 1 AND expired = 0;
CREATE INDEX job_idempotency ON job(idempotency) WHERE idempotency IS NOT NULL;

-- One row an image: exactly once per (job, index).
CREATE TABLE image(
  job INTEGER NOT NULL REFERENCES job(row) ON DELETE CASCADE,
  number INTEGER NOT NULL CHECK(number >= 0),               -- index within the job
  file TEXT NOT NULL CHECK(length(file) > 0),               -- name inside the images folder
  seed INTEGER NOT NULL,                                    -- unsigned 64 bits, kept as the signed number of the same bits
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  bytes INTEGER NOT NULL CHECK(bytes >= 0),
  sha256 TEXT NOT NULL,
  pixels_sha256 TEXT NOT NULL,
  device TEXT NOT NULL,
  build TEXT NOT NULL,
  PRIMARY KEY(job, number)
) STRICT, WITHOUT ROWID;

-- Milestones, replayed verbatim.
CREATE TABLE event(
  job INTEGER NOT NULL REFERENCES job(row) ON DELETE CASCADE,
  seq INTEGER NOT NULL CHECK(seq >= 1),
  name TEXT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY(job, seq)
) STRICT, WITHOUT ROWID;

-- Start-time fair queueing: the finish tag of each client's newest job, and the start tag last claimed, in each priority.
CREATE TABLE client(
  client TEXT NOT NULL,
  priority INTEGER NOT NULL,
  turn INTEGER NOT NULL,
  PRIMARY KEY(client, priority)
) STRICT, WITHOUT ROWID;
CREATE TABLE level(
  priority INTEGER PRIMARY KEY,
  turn INTEGER NOT NULL
) STRICT;
WITH RECURSIVE p(x) AS (SELECT -10 UNION ALL SELECT x + 1 FROM p WHERE x < 10) INSERT INTO level SELECT x, 0 FROM p;

-- Model descriptions, so that requests are validated while no worker runs.
CREATE TABLE model(
  name TEXT PRIMARY KEY,
  description TEXT NOT NULL,
  updated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Counts that limits and metrics read at once; triggers keep them equal to a full scan.
CREATE TABLE total(
  state INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  jobs INTEGER NOT NULL CHECK(jobs >= 0),
  cost INTEGER NOT NULL CHECK(cost >= 0),
  PRIMARY KEY(state, priority)
) STRICT, WITHOUT ROWID;
WITH RECURSIVE s(y) AS (SELECT 0 UNION ALL SELECT y + 1 FROM s WHERE y < 4) INSERT INTO total SELECT y, priority, 0, 0 FROM s, level;
CREATE TABLE image_total(
  row INTEGER PRIMARY KEY CHECK(row = 1),
  bytes INTEGER NOT NULL CHECK(bytes >= 0)
) STRICT;
INSERT INTO image_total VALUES(1, 0);

CREATE TRIGGER job_added AFTER INSERT ON job BEGIN
  UPDATE total SET jobs = jobs + 1, cost = cost + new.cost WHERE state = new.state AND priority = new.priority;
END;
CREATE TRIGGER job_moved AFTER UPDATE OF state ON job WHEN old.state != new.state BEGIN
  UPDATE total SET jobs = jobs - 1, cost = cost - old.cost WHERE state = old.state AND priority = old.priority;
  UPDATE total SET jobs = jobs + 1, cost = cost + new.cost WHERE state = new.state AND priority = new.priority;
END;
CREATE TRIGGER job_forgotten AFTER DELETE ON job BEGIN
  UPDATE total SET jobs = jobs - 1, cost = cost - old.cost WHERE state = old.state AND priority = old.priority;
END;
CREATE TRIGGER image_added AFTER INSERT ON image BEGIN
  UPDATE image_total SET bytes = bytes + new.bytes;
END;
CREATE TRIGGER image_removed AFTER DELETE ON image BEGIN
  UPDATE image_total SET bytes = bytes - old.bytes;
END;
