-- What happens inside a meeting: events of a fourth source, the meetings that are attended, and who is how in them now.

-- Not validated: it is wider than what held for every row.
ALTER TABLE events DROP CONSTRAINT events_source_check;
ALTER TABLE events ADD CONSTRAINT events_source_check
    CHECK (source IN ('push', 'backfill', 'platform', 'live')) NOT VALID;

CREATE INDEX events_live ON events (seq) WHERE source = 'live';

CREATE TABLE live_meetings (
    meeting_id    text PRIMARY KEY,
    subscriber_id text,
    meeting_uuid  text,
    password      text,
    state         text NOT NULL,
    reason        text,
    asked         boolean NOT NULL,
    wanted_at     timestamptz NOT NULL,
    heard_at      timestamptz,
    lease_owner   text,
    lease_until   timestamptz
);
COMMENT ON TABLE live_meetings IS 'Running meetings whose own push is wanted (live.enabled), and how it stands with them.';
COMMENT ON COLUMN live_meetings.meeting_id IS 'The number of the meeting: one run at a time has it.';
COMMENT ON COLUMN live_meetings.meeting_uuid IS 'The run; null until it is known.';
COMMENT ON COLUMN live_meetings.password IS 'The host''s password, if the command gave it; gone with the row, once the meeting is over.';
COMMENT ON COLUMN live_meetings.state IS 'waiting, attending, no_password, refused or unwanted.';
COMMENT ON COLUMN live_meetings.reason IS 'Why it is not attended, or what went wrong last.';
COMMENT ON COLUMN live_meetings.asked IS 'Whether a command asked for it, and not the settings.';
COMMENT ON COLUMN live_meetings.heard_at IS 'When its newest message came.';

CREATE TABLE live_presence (
    subscriber_id  text NOT NULL,
    meeting_uuid   text NOT NULL,
    participant_id text NOT NULL,
    place          text NOT NULL,
    display_name   text,
    user_uuid      text,
    account        text,
    call_number    text,
    host           boolean NOT NULL,
    muted          boolean NOT NULL,
    hand_raised    boolean NOT NULL,
    sharing        boolean NOT NULL,
    speaking       boolean NOT NULL,
    since          timestamptz,
    PRIMARY KEY (subscriber_id, meeting_uuid, participant_id)
);
COMMENT ON TABLE live_presence IS 'Who is in a running meeting that is attended, and how; emptied when it is over.';
COMMENT ON COLUMN live_presence.place IS 'in (the meeting), called (the call rings) or waiting (in the waiting room).';
COMMENT ON COLUMN live_presence.since IS 'Since when they are there, as the meeting tells it.';
