-- What analysts ask. Made from the log by the cursor `meetings`, and can be made again from it at any time: columns named
-- `internal` hold what the cursor needs to go on, in whatever order events arrive.

-- A run of a meeting: numbers are used again, UUIDs are not.
CREATE TABLE meetings (
    subscriber_id        TEXT NOT NULL,
    meeting_uuid         TEXT NOT NULL,
    meeting_id           TEXT,
    meeting_cycle_sub_id TEXT,
    status               TEXT NOT NULL,
    created_at           TEXT,
    modified_at          TEXT,
    modifications        INTEGER NOT NULL,
    cancelled_at         TEXT,
    started_at           TEXT,
    ended_at             TEXT,
    concluded_at         TEXT,
    stays                INTEGER NOT NULL,
    participants         INTEGER NOT NULL,
    peak_participants    INTEGER NOT NULL,
    recordings           INTEGER NOT NULL,
    first_event_at       TEXT NOT NULL,
    last_event_at        TEXT NOT NULL,
    subject              TEXT,
    scheduled_start_at   TEXT,
    scheduled_end_at     TEXT,
    host                 TEXT,
    corp_id              TEXT,
    internal             TEXT NOT NULL,
    PRIMARY KEY (subscriber_id, meeting_uuid)
) WITHOUT ROWID, STRICT;

-- Somebody's stay in a run, from joining to leaving. Kept by runs, which are read as a whole when they go on.
CREATE TABLE attendance (
    stay_id        TEXT NOT NULL,
    subscriber_id  TEXT NOT NULL,
    meeting_uuid   TEXT NOT NULL,
    meeting_id     TEXT,
    participant_id TEXT,
    person         TEXT,
    user_uuid      TEXT,
    account        TEXT,
    display_name   TEXT,
    call_number    TEXT,
    user_agent     TEXT,
    role           TEXT,
    joined_at      TEXT,
    left_at        TEXT,
    duration_s     REAL,
    closed_by      TEXT NOT NULL,
    internal       TEXT NOT NULL,
    PRIMARY KEY (subscriber_id, meeting_uuid, stay_id)
) WITHOUT ROWID, STRICT;

-- A finished recording.
CREATE TABLE recordings (
    event_id      TEXT NOT NULL,
    subscriber_id TEXT NOT NULL,
    meeting_uuid  TEXT,
    meeting_id    TEXT,
    finished_at   TEXT NOT NULL,
    ready_at      TEXT,
    length_s      INTEGER,
    size_mb       REAL,
    files         INTEGER,
    view_url      TEXT,
    PRIMARY KEY (event_id)
) WITHOUT ROWID, STRICT;

CREATE INDEX recordings_run ON recordings (subscriber_id, meeting_uuid);
