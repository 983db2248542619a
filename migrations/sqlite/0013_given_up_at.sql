-- When, by the clock of whoever did, an entry of a work list was given up: one that lies in the future was given up by a clock
-- that was wrong, and is asked for again.
ALTER TABLE fetches ADD COLUMN given_up_at TEXT;
ALTER TABLE enrichments ADD COLUMN given_up_at TEXT;
CREATE INDEX fetches_given_up_at ON fetches (given_up_at) WHERE given_up_at IS NOT NULL;
CREATE INDEX enrichments_given_up_at ON enrichments (given_up_at) WHERE given_up_at IS NOT NULL;
