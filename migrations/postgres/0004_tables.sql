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

COMMENT ON TABLE meetings IS 'Runs of meetings. Numbers are used again, UUIDs are not. Made from the log by the cursor meetings; convoke rebuild makes it anew.';
COMMENT ON COLUMN meetings.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN meetings.meeting_uuid IS 'The run, as the platform names it.';
COMMENT ON COLUMN meetings.meeting_id IS 'The meeting''s number, which later meetings may have again.';
COMMENT ON COLUMN meetings.meeting_cycle_sub_id IS 'The occurrence of a recurring meeting; null for single ones.';
COMMENT ON COLUMN meetings.status IS 'scheduled, cancelled, live, ended (it may go on) or concluded (it is over).';
COMMENT ON COLUMN meetings.created_at IS 'When it was scheduled; null if no such event came (instant meetings).';
COMMENT ON COLUMN meetings.modified_at IS 'When it was edited last.';
COMMENT ON COLUMN meetings.modifications IS 'How often it was edited; the newest 1,000 are counted.';
COMMENT ON COLUMN meetings.cancelled_at IS 'When it was cancelled.';
COMMENT ON COLUMN meetings.started_at IS 'When it started first.';
COMMENT ON COLUMN meetings.ended_at IS 'When it ended last; null while it is live.';
COMMENT ON COLUMN meetings.concluded_at IS 'When it was closed: nobody can enter it again.';
COMMENT ON COLUMN meetings.stays IS 'How many stays there were: rows of attendance.';
COMMENT ON COLUMN meetings.participants IS 'How many distinct people came: by person, else by name.';
COMMENT ON COLUMN meetings.peak_participants IS 'The most distinct people at one moment.';
COMMENT ON COLUMN meetings.recordings IS 'How many recordings were finished: rows of recordings.';
COMMENT ON COLUMN meetings.first_event_at IS 'When the first of its events in the log happened.';
COMMENT ON COLUMN meetings.last_event_at IS 'When the last of its events in the log happened.';
COMMENT ON COLUMN meetings.subject IS 'Fetched from the platform, if enriched.';
COMMENT ON COLUMN meetings.scheduled_start_at IS 'Fetched from the platform, if enriched.';
COMMENT ON COLUMN meetings.scheduled_end_at IS 'Fetched from the platform, if enriched.';
COMMENT ON COLUMN meetings.host IS 'Fetched from the platform, if enriched.';
COMMENT ON COLUMN meetings.corp_id IS 'The enterprise. Fetched from the platform, if enriched.';
COMMENT ON COLUMN meetings.internal IS 'What the cursor needs to go on with this run. No promise is made about it.';

COMMENT ON TABLE attendance IS 'Stays: somebody in a run of a meeting on one device, from joining to leaving.';
COMMENT ON COLUMN attendance.stay_id IS 'From subscriber, run, participant and time of joining alone: the same after every rebuild.';
COMMENT ON COLUMN attendance.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN attendance.meeting_uuid IS 'The run.';
COMMENT ON COLUMN attendance.meeting_id IS 'The meeting''s number.';
COMMENT ON COLUMN attendance.participant_id IS 'The participant in the meeting; null if history does not tell.';
COMMENT ON COLUMN attendance.person IS 'Who that is: the user UUID, else the account, else the call number, else the participant; null if only a name is known.';
COMMENT ON COLUMN attendance.user_uuid IS 'The user.';
COMMENT ON COLUMN attendance.account IS 'The login name.';
COMMENT ON COLUMN attendance.display_name IS 'The name shown in the meeting, in the end.';
COMMENT ON COLUMN attendance.call_number IS 'The number, for SIP and telephone.';
COMMENT ON COLUMN attendance.user_agent IS 'The kind of client.';
COMMENT ON COLUMN attendance.role IS 'The role in the meeting, in the end.';
COMMENT ON COLUMN attendance.joined_at IS 'When it began.';
COMMENT ON COLUMN attendance.left_at IS 'When it ended; null while it is open.';
COMMENT ON COLUMN attendance.duration_s IS 'left_at - joined_at in seconds.';
COMMENT ON COLUMN attendance.closed_by IS 'left (somebody left), meeting_end (the run ended before a left came) or open.';
COMMENT ON COLUMN attendance.internal IS 'What the cursor needs to go on with this stay. No promise is made about it.';

COMMENT ON TABLE recordings IS 'Finished recordings: one row for each record.finish.';
COMMENT ON COLUMN recordings.event_id IS 'The event that told of it.';
COMMENT ON COLUMN recordings.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN recordings.meeting_uuid IS 'The run.';
COMMENT ON COLUMN recordings.meeting_id IS 'The meeting''s number.';
COMMENT ON COLUMN recordings.finished_at IS 'When it was finished; it may not be playable yet.';
COMMENT ON COLUMN recordings.ready_at IS 'Since when the run''s recordings can be played; null if not fetched, as all that follow.';
COMMENT ON COLUMN recordings.length_s IS 'How long the run''s recordings are together, in seconds.';
COMMENT ON COLUMN recordings.size_mb IS 'How large they are together, in megabytes.';
COMMENT ON COLUMN recordings.files IS 'Of how many files they are.';
COMMENT ON COLUMN recordings.view_url IS 'Where to look at them; no token in it.';
