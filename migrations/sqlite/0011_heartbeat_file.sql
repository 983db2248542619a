-- Which file the heartbeat was written into (its inode): a copy, put in place of the file that a service has open, has a
-- heartbeat too, and is not the one into which events are accepted.
ALTER TABLE heartbeat ADD COLUMN file INTEGER;
