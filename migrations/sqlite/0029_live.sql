-- What happens inside a meeting: events of a fourth source, the meetings that are attended, and who is how in them now.

-- The table is as large as the log: its condition is widened where it is written down, which is what SQLite's documentation
-- recommends for that. What follows makes other connections read it again.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
   SET sql = replace(sql, '''push'', ''backfill'', ''platform''', '''push'', ''backfill'', ''platform'', ''live''')
 WHERE type = 'table' AND name = 'events';
PRAGMA writable_schema = RESET;

-- Their retention is its own.
CREATE INDEX events_live ON events (seq) WHERE source = 'live';

CREATE TABLE live_meetings (
    -- One run at a time has a number.
    meeting_id    TEXT PRIMARY KEY,
    -- The run; null until it is known.
    subscriber_id TEXT,
    meeting_uuid  TEXT,
    -- Given by command; gone with the row, once the meeting is over.
    password      TEXT,
    -- waiting, attending, no_password, refused or unwanted
    state         TEXT NOT NULL,
    reason        TEXT,
    -- Whether a command asked for it, and not the settings.
    asked         INTEGER NOT NULL,
    wanted_at     TEXT NOT NULL,
    -- When its newest message came.
    heard_at      TEXT,
    lease_owner   TEXT,
    lease_until   TEXT
) WITHOUT ROWID, STRICT;

-- Emptied when the meeting is over.
CREATE TABLE live_presence (
    subscriber_id  TEXT NOT NULL,
    meeting_uuid   TEXT NOT NULL,
    participant_id TEXT NOT NULL,
    -- in, called or waiting
    place          TEXT NOT NULL,
    display_name   TEXT,
    user_uuid      TEXT,
    account        TEXT,
    call_number    TEXT,
    host           INTEGER NOT NULL,
    muted          INTEGER NOT NULL,
    hand_raised    INTEGER NOT NULL,
    sharing        INTEGER NOT NULL,
    speaking       INTEGER NOT NULL,
    since          TEXT,
    PRIMARY KEY (subscriber_id, meeting_uuid, participant_id)
) WITHOUT ROWID, STRICT;
