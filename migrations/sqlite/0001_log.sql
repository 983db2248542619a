-- The log and what stands beside it. Times are text, YYYY-MM-DDTHH:MM:SS.mmmZ, so that text order is time order.

-- Rows are only added. AUTOINCREMENT: a number is never given twice, even if the newest row was deleted; else a new
-- event could lie behind the cursors, which would never see it.
CREATE TABLE events (
    seq                  INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Led by the event's own time: new ids land at the right-hand edge of the unique index.
    event_id             TEXT NOT NULL UNIQUE,
    subscriber_id        TEXT NOT NULL,
    event                TEXT NOT NULL,
    occurred_at          TEXT NOT NULL,
    received_at          TEXT NOT NULL,
    meeting_id           TEXT,
    meeting_uuid         TEXT,
    meeting_cycle_sub_id TEXT,
    user_uuid            TEXT,
    user_agent           TEXT,
    account              TEXT,
    participant_id       TEXT,
    display_name         TEXT,
    role                 TEXT,
    call_number          TEXT,
    join_time            TEXT,
    left_time            TEXT,
    source               TEXT NOT NULL CHECK (source IN ('push', 'backfill', 'platform')),
    deliveries           INTEGER NOT NULL,
    last_delivered_at    TEXT NOT NULL,
    request_id           TEXT,
    -- W3C trace context of the first delivery, carried on to the bus.
    traceparent          TEXT,
    -- Verbatim, without insignificant white space; null only when forgotten.
    event_info           TEXT,
    forgotten_at         TEXT
) STRICT;

CREATE INDEX events_meeting_id ON events (meeting_id, seq) WHERE meeting_id IS NOT NULL;

-- Signed bodies of which no event could be made.
CREATE TABLE quarantine (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    digest        BLOB NOT NULL UNIQUE,
    subscriber_id TEXT NOT NULL,
    received_at   TEXT NOT NULL,
    deliveries    INTEGER NOT NULL,
    reason        TEXT NOT NULL,
    body          BLOB NOT NULL
) STRICT;

-- Rows of the log that a cursor passed by, because its target will never take them.
CREATE TABLE set_aside (
    cursor   TEXT NOT NULL,
    seq      INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    reason   TEXT NOT NULL,
    at       TEXT NOT NULL,
    PRIMARY KEY (cursor, seq)
) STRICT;

-- Readers of the log: everything up to position is done. The lease says which process moves it.
CREATE TABLE cursors (
    name        TEXT PRIMARY KEY,
    position    INTEGER NOT NULL,
    lease_owner TEXT,
    lease_until TEXT,
    updated_at  TEXT NOT NULL
) STRICT;

-- The newest handshake of each subscriber, whichever process answered it.
CREATE TABLE handshakes (
    subscriber_id TEXT PRIMARY KEY,
    at            TEXT NOT NULL
) STRICT;

-- One row, written to find out whether writing works.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at TEXT NOT NULL
) STRICT;
