-- What the platform's history and dashboard tell of a stay besides, where it was filled from them.
ALTER TABLE attendance ADD COLUMN device_type TEXT;
ALTER TABLE attendance ADD COLUMN media_type TEXT;
ALTER TABLE attendance ADD COLUMN department TEXT;
ALTER TABLE attendance ADD COLUMN leave_reason TEXT;
COMMENT ON COLUMN attendance.device_type IS 'The kind of device, where the platform''s history told it.';
COMMENT ON COLUMN attendance.media_type IS 'What was shown or heard, where the platform''s history told it.';
COMMENT ON COLUMN attendance.department IS 'The department, where the platform''s history told it.';
COMMENT ON COLUMN attendance.leave_reason IS 'Why they left, where the platform''s dashboard told it: left, or network.';
