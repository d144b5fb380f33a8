-- How often the network was asked for an image: what an adaptive sampler found it needed. 0: not known (made before this).
ALTER TABLE image ADD COLUMN evaluations INTEGER NOT NULL DEFAULT 0 CHECK(evaluations >= 0);
