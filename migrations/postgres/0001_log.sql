-- The log and what stands beside it.

-- The order of the log. Numbers are drawn under a lock that is held through the commit (see log/postgres.rs), so that
-- they become visible in order; what ON CONFLICT discards leaves gaps.
CREATE SEQUENCE events_seq AS bigint;

-- Rows are only added. Partitioned by the event's own time, which leads its id: the unique index stays legal and local,
-- and retention is a drop. Months are made ahead of time by the service; the two ends take what lies outside of them,
-- instead of a DEFAULT partition, which would forbid detaching concurrently.
CREATE TABLE events (
    seq                  bigint NOT NULL DEFAULT nextval('events_seq'),
    event_id             uuid NOT NULL,
    subscriber_id        text NOT NULL,
    event                text NOT NULL,
    occurred_at          timestamptz NOT NULL,
    received_at          timestamptz NOT NULL,
    meeting_id           text,
    meeting_uuid         text,
    meeting_cycle_sub_id text,
    user_uuid            text,
    user_agent           text,
    account              text,
    participant_id       text,
    display_name         text,
    role                 text,
    call_number          text,
    join_time            timestamptz,
    left_time            timestamptz,
    source               text NOT NULL CHECK (source IN ('push', 'backfill', 'platform')),
    deliveries           integer NOT NULL,
    last_delivered_at    timestamptz NOT NULL,
    request_id           text,
    -- W3C trace context of the first delivery, carried on to the bus.
    traceparent          text,
    -- Verbatim, without insignificant white space; null only when forgotten. Text, not jsonb: jsonb changes numbers and
    -- the order of members, and refuses \u0000.
    event_info           text,
    forgotten_at         timestamptz,
    CONSTRAINT events_event_id_key UNIQUE (event_id)
) PARTITION BY RANGE (event_id);

CREATE INDEX events_seq_idx ON events (seq);
-- An index entry has room for 2.7 kB: a meeting number that is longer than 2,000 bytes, which none is, is cut there in its
-- column (and verbatim in event_info), rather than refused.
CREATE INDEX events_meeting_id_idx ON events (meeting_id, seq) WHERE meeting_id IS NOT NULL;

CREATE TABLE events_past PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('00000000-0000-8000-8000-000000000001');
CREATE TABLE events_future PARTITION OF events FOR VALUES FROM ('00000000-0000-8000-8000-000000000001') TO (MAXVALUE);

-- Signed bodies of which no event could be made.
CREATE TABLE quarantine (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest        bytea NOT NULL UNIQUE,
    subscriber_id text NOT NULL,
    received_at   timestamptz NOT NULL,
    deliveries    bigint NOT NULL,
    reason        text NOT NULL,
    body          bytea NOT NULL
);

-- Rows of the log that a cursor passed by, because its target will never take them.
CREATE TABLE set_aside (
    cursor   text NOT NULL,
    seq      bigint NOT NULL,
    event_id uuid NOT NULL,
    reason   text NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (cursor, seq)
);

-- Readers of the log: everything up to position is done. The lease says which process moves it. Small and often
-- updated: room on the page keeps the updates within it.
CREATE TABLE cursors (
    name        text PRIMARY KEY,
    position    bigint NOT NULL,
    lease_owner text,
    lease_until timestamptz,
    updated_at  timestamptz NOT NULL
) WITH (fillfactor = 20);

-- The newest handshake of each subscriber, whichever process answered it.
CREATE TABLE handshakes (
    subscriber_id text PRIMARY KEY,
    at            timestamptz NOT NULL
);

-- One row, written to find out whether writing works.
CREATE TABLE heartbeat (
    id integer PRIMARY KEY CHECK (id = 1),
    at timestamptz NOT NULL
) WITH (fillfactor = 20);
