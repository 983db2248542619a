-- Who publishes takes turns: a replay asks the relay for the lease of its cursor, and is asked for it in turn.
ALTER TABLE cursors ADD COLUMN wanted_by TEXT;
ALTER TABLE cursors ADD COLUMN wanted_until TEXT;
