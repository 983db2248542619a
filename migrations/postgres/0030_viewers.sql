-- Who may watch a recording, as `record.ready` tells from now on.
ALTER TABLE recordings ADD COLUMN viewers text;
COMMENT ON COLUMN recordings.viewers IS 'Who may watch: link (everybody who has it), enterprise (its users) or participants.';
COMMENT ON COLUMN recordings.ready_at IS 'When the platform expected decoding to end, once the run''s recordings can be played: the time of record.ready; null if not fetched, as all that follow.';
