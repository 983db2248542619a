-- What is asked of the platform, and what came of it; survives restarts and does not belong to any one replica.

-- The recordings of a run, from its first record.finish on.
CREATE TABLE fetches (
    subscriber_id text NOT NULL,
    meeting_uuid  text NOT NULL,
    meeting_id    text,
    -- How many record.finish there were, when the newest happened, and its place in the log: none is counted twice.
    finishes      bigint NOT NULL,
    finished_at   timestamptz NOT NULL,
    last_seq      bigint NOT NULL,
    state         text NOT NULL CHECK (state IN ('waiting', 'ready', 'published', 'given_up')),
    tries         bigint NOT NULL,
    -- Null: there is nothing left to do.
    due_at        timestamptz,
    -- The record.ready that is to be appended (ready), or was last.
    event_info    text,
    -- Why it still waits, or was given up.
    reason        text,
    PRIMARY KEY (subscriber_id, meeting_uuid)
);

CREATE INDEX fetches_due ON fetches (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX fetches_given_up ON fetches (state) WHERE state = 'given_up';

-- What the platform knows about a run beyond its events. Outlives the rows of meetings, which can be made anew.
CREATE TABLE enrichments (
    subscriber_id      text NOT NULL,
    meeting_uuid       text NOT NULL,
    state              text NOT NULL CHECK (state IN ('waiting', 'enriched', 'given_up')),
    -- Of the run when it was put here last. One that was modified since is asked for again, and so is one that was given up
    -- and has begun or ended since.
    status             text NOT NULL,
    modifications      bigint NOT NULL,
    tries              bigint NOT NULL,
    due_at             timestamptz,
    reason             text,
    subject            text,
    scheduled_start_at timestamptz,
    scheduled_end_at   timestamptz,
    host               text,
    corp_id            text,
    PRIMARY KEY (subscriber_id, meeting_uuid)
);

CREATE INDEX enrichments_due ON enrichments (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX enrichments_given_up ON enrichments (state) WHERE state = 'given_up';

-- A run's row that is made anew has what was known of it.
CREATE FUNCTION convoke_enrich_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meetings m
       SET subject = e.subject, scheduled_start_at = e.scheduled_start_at, scheduled_end_at = e.scheduled_end_at,
           host = e.host, corp_id = e.corp_id
      FROM made JOIN enrichments e ON e.subscriber_id = made.subscriber_id AND e.meeting_uuid = made.meeting_uuid
     WHERE m.subscriber_id = made.subscriber_id AND m.meeting_uuid = made.meeting_uuid;
    RETURN NULL;
END $$;

CREATE TRIGGER meetings_enriched AFTER INSERT ON meetings
    REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION convoke_enrich_made();
