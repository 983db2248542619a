-- `heartbeat` now says when events were last accepted; only a service that accepts them writes it. Whether writing works
-- is found out here, also by commands.
CREATE TABLE probe (
    id integer PRIMARY KEY CHECK (id = 1),
    at timestamptz NOT NULL
) WITH (fillfactor = 20);

-- What a background task remembers from one run of the service to the next.
CREATE TABLE task_notes (
    name text PRIMARY KEY,
    note text NOT NULL,
    at   timestamptz NOT NULL
) WITH (fillfactor = 20);
