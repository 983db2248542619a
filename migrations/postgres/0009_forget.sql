-- What erasing a person leaves behind: that it was done, and what keeps the person from coming back. Nobody's data.

-- One row for each `convoke forget`. One that was broken off has no finished_at; the same command goes on with it.
CREATE TABLE erasures (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Keyed hash of what the person was named by, and which kinds of names those were.
    person      text NOT NULL,
    named_by    text NOT NULL,
    -- Also in the column forgotten_at of the rows that it erased.
    begun_at    timestamptz NOT NULL,
    finished_at timestamptz,
    -- How much was erased, counted in the transactions that did it.
    events      bigint NOT NULL DEFAULT 0,
    stays       bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    hosts       bigint NOT NULL DEFAULT 0,
    -- Messages of the stream: counted before they are deleted, so that nobody takes it for a loss.
    messages    bigint NOT NULL DEFAULT 0
);

CREATE INDEX erasures_person ON erasures (person);

-- The ids of erased events, whose messages are looked for on the subjects of their meetings; also by a second run.
CREATE TABLE erased_events (
    event_id   uuid NOT NULL,
    erasure    bigint NOT NULL,
    meeting_id text,
    PRIMARY KEY (erasure, event_id)
);

-- The stays that an erasure that is not finished has found.
CREATE TABLE erased_stays (
    erasure       bigint NOT NULL,
    subscriber_id text NOT NULL,
    meeting_uuid  text NOT NULL,
    stay_id       uuid NOT NULL,
    meeting_id    text,
    PRIMARY KEY (erasure, subscriber_id, meeting_uuid, stay_id)
);

-- Keyed hashes by which what the platform's history tells of somebody is recognised as forgotten, and until when.
CREATE TABLE forgotten (
    hash text PRIMARY KEY,
    at   timestamptz NOT NULL
);

-- The key of the hashes: random, made when somebody is forgotten first.
CREATE TABLE forgotten_key (
    id  integer PRIMARY KEY CHECK (id = 1),
    key text NOT NULL
);
