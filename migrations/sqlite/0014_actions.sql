-- What operators did by way of the admin listener: once for each id, whichever replica is asked. Nobody's data: a note names a
-- token, numbers of entries of the quarantine, and a meeting's number at the most.
CREATE TABLE actions (
    -- As its client made it.
    id       TEXT PRIMARY KEY,
    begun_at TEXT NOT NULL,
    -- What was asked for, by whom, and how it stands: JSON.
    note     TEXT NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX actions_begun ON actions (begun_at);
