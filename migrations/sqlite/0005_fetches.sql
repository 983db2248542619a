-- What is asked of the platform, and what came of it; survives restarts and does not belong to any one replica.

-- The recordings of a run, from its first record.finish on.
CREATE TABLE fetches (
    subscriber_id TEXT NOT NULL,
    meeting_uuid  TEXT NOT NULL,
    meeting_id    TEXT,
    -- How many record.finish there were, when the newest happened, and its place in the log: none is counted twice.
    finishes      INTEGER NOT NULL,
    finished_at   TEXT NOT NULL,
    last_seq      INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'published', 'given_up')),
    tries         INTEGER NOT NULL,
    -- Null: there is nothing left to do.
    due_at        TEXT,
    -- The record.ready that is to be appended (ready), or was last.
    event_info    TEXT,
    -- Why it still waits, or was given up.
    reason        TEXT,
    PRIMARY KEY (subscriber_id, meeting_uuid)
) STRICT;

CREATE INDEX fetches_due ON fetches (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX fetches_given_up ON fetches (state) WHERE state = 'given_up';

-- What the platform knows about a run beyond its events. Outlives the rows of meetings, which can be made anew.
CREATE TABLE enrichments (
    subscriber_id      TEXT NOT NULL,
    meeting_uuid       TEXT NOT NULL,
    state              TEXT NOT NULL CHECK (state IN ('waiting', 'enriched', 'given_up')),
    -- Of the run when it was put here last. One that was modified since is asked for again, and so is one that was given up
    -- and has begun or ended since.
    status             TEXT NOT NULL,
    modifications      INTEGER NOT NULL,
    tries              INTEGER NOT NULL,
    due_at             TEXT,
    reason             TEXT,
    subject            TEXT,
    scheduled_start_at TEXT,
    scheduled_end_at   TEXT,
    host               TEXT,
    corp_id            TEXT,
    PRIMARY KEY (subscriber_id, meeting_uuid)
) STRICT;

CREATE INDEX enrichments_due ON enrichments (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX enrichments_given_up ON enrichments (state) WHERE state = 'given_up';

-- A run's row that is made anew has what was known of it.
CREATE TRIGGER meetings_enriched AFTER INSERT ON meetings
    WHEN EXISTS (SELECT 1 FROM enrichments
                  WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid)
BEGIN
    UPDATE meetings SET (subject, scheduled_start_at, scheduled_end_at, host, corp_id) =
           (SELECT subject, scheduled_start_at, scheduled_end_at, host, corp_id FROM enrichments
             WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid)
     WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid;
END;
