-- Sessions of the admin listener that were ended before their time. Nobody's data: an id is random, and opens nothing.
CREATE TABLE ended_sessions (
    id         TEXT PRIMARY KEY,
    -- Until when the session would have lasted; the row is of no use after that.
    expires_at TEXT NOT NULL
) WITHOUT ROWID, STRICT;
