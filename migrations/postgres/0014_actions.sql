-- What operators did by way of the admin listener: once for each id, whichever replica is asked. Nobody's data: a note names a
-- token, numbers of entries of the quarantine, and a meeting's number at the most.
CREATE TABLE actions (
    -- As its client made it.
    id       text PRIMARY KEY,
    begun_at timestamptz NOT NULL,
    -- What was asked for, by whom, and how it stands: JSON.
    note     text NOT NULL
);
CREATE INDEX actions_begun ON actions (begun_at);
