-- A count tells that a handshake came since, whatever the clocks of those who answered say.
ALTER TABLE handshakes ADD COLUMN answered bigint NOT NULL DEFAULT 0;

-- Our own handshakes through the public URL: only what is expected here is noted when it arrives.
CREATE TABLE probes (
    nonce         text PRIMARY KEY,
    subscriber_id text NOT NULL,
    expected_at   timestamptz NOT NULL,
    arrived_at    timestamptz
);
