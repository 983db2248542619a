-- A count tells that a handshake came since, whatever the clocks of those who answered say.
ALTER TABLE handshakes ADD COLUMN answered INTEGER NOT NULL DEFAULT 0;

-- Our own handshakes through the public URL: only what is expected here is noted when it arrives.
CREATE TABLE probes (
    nonce         TEXT PRIMARY KEY,
    subscriber_id TEXT NOT NULL,
    expected_at   TEXT NOT NULL,
    arrived_at    TEXT
) STRICT;
