-- What erasing a person leaves behind: that it was done, and what keeps the person from coming back. Nobody's data.

-- One row for each `convoke forget`. One that was broken off has no finished_at; the same command goes on with it.
CREATE TABLE erasures (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Keyed hash of what the person was named by, and which kinds of names those were.
    person      TEXT NOT NULL,
    named_by    TEXT NOT NULL,
    -- Also in the column forgotten_at of the rows that it erased.
    begun_at    TEXT NOT NULL,
    finished_at TEXT,
    -- How much was erased, counted in the transactions that did it.
    events      INTEGER NOT NULL DEFAULT 0,
    stays       INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    hosts       INTEGER NOT NULL DEFAULT 0,
    -- Messages of the stream: counted before they are deleted, so that nobody takes it for a loss.
    messages    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX erasures_person ON erasures (person);

-- The ids of erased events, whose messages are looked for on the subjects of their meetings; also by a second run.
CREATE TABLE erased_events (
    event_id   TEXT NOT NULL,
    erasure    INTEGER NOT NULL,
    meeting_id TEXT,
    PRIMARY KEY (erasure, event_id)
) WITHOUT ROWID, STRICT;

-- The stays that an erasure that is not finished has found.
CREATE TABLE erased_stays (
    erasure       INTEGER NOT NULL,
    subscriber_id TEXT NOT NULL,
    meeting_uuid  TEXT NOT NULL,
    stay_id       TEXT NOT NULL,
    meeting_id    TEXT,
    PRIMARY KEY (erasure, subscriber_id, meeting_uuid, stay_id)
) WITHOUT ROWID, STRICT;

-- Keyed hashes by which what the platform's history tells of somebody is recognised as forgotten, and until when.
CREATE TABLE forgotten (
    hash TEXT PRIMARY KEY,
    at   TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- The key of the hashes: random, made when somebody is forgotten first.
CREATE TABLE forgotten_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key TEXT NOT NULL
) STRICT;
