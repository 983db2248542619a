-- Sessions of the admin listener that were ended before their time. Nobody's data: an id is random, and opens nothing.
CREATE TABLE ended_sessions (
    id         text PRIMARY KEY,
    -- Until when the session would have lasted; the row is of no use after that.
    expires_at timestamptz NOT NULL
);
