-- `heartbeat` now says when events were last accepted; only a service that accepts them writes it. Whether writing works
-- is found out here, also by commands.
CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at TEXT NOT NULL
) STRICT;

-- What a background task remembers from one run of the service to the next.
CREATE TABLE task_notes (
    name TEXT PRIMARY KEY,
    note TEXT NOT NULL,
    at   TEXT NOT NULL
) STRICT;
