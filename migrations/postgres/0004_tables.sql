-- What analysts ask. Made from the log by the cursor `meetings`, and can be made again from it at any time: columns named
-- `internal` hold what the cursor needs to go on, in whatever order events arrive.

-- A run of a meeting: numbers are used again, UUIDs are not.
CREATE TABLE meetings (
    subscriber_id        text NOT NULL,
    meeting_uuid         text NOT NULL,
    meeting_id           text,
    meeting_cycle_sub_id text,
    status               text NOT NULL,
    created_at           timestamptz,
    modified_at          timestamptz,
    modifications        bigint NOT NULL,
    cancelled_at         timestamptz,
    started_at           timestamptz,
    ended_at             timestamptz,
    concluded_at         timestamptz,
    stays                bigint NOT NULL,
    participants         bigint NOT NULL,
    peak_participants    bigint NOT NULL,
    recordings           bigint NOT NULL,
    first_event_at       timestamptz NOT NULL,
    last_event_at        timestamptz NOT NULL,
    subject              text,
    scheduled_start_at   timestamptz,
    scheduled_end_at     timestamptz,
    host                 text,
    corp_id              text,
    internal             text NOT NULL,
    PRIMARY KEY (subscriber_id, meeting_uuid)
) WITH (fillfactor = 70);

-- Somebody's stay in a run, from joining to leaving. Kept by runs, which are read as a whole when they go on.
CREATE TABLE attendance (
    stay_id        uuid NOT NULL,
    subscriber_id  text NOT NULL,
    meeting_uuid   text NOT NULL,
    meeting_id     text,
    participant_id text,
    person         text,
    user_uuid      text,
    account        text,
    display_name   text,
    call_number    text,
    user_agent     text,
    role           text,
    joined_at      timestamptz,
    left_at        timestamptz,
    duration_s     double precision,
    closed_by      text NOT NULL,
    internal       text NOT NULL,
    PRIMARY KEY (subscriber_id, meeting_uuid, stay_id)
) WITH (fillfactor = 80);

-- A finished recording.
CREATE TABLE recordings (
    event_id      uuid NOT NULL,
    subscriber_id text NOT NULL,
    meeting_uuid  text,
    meeting_id    text,
    finished_at   timestamptz NOT NULL,
    ready_at      timestamptz,
    length_s      bigint,
    size_mb       double precision,
    files         bigint,
    view_url      text,
    PRIMARY KEY (event_id)
);

CREATE INDEX recordings_run ON recordings (subscriber_id, meeting_uuid);
