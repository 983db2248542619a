-- What the platform's history and dashboard tell of a stay besides, where it was filled from them.
ALTER TABLE attendance ADD COLUMN device_type TEXT;
ALTER TABLE attendance ADD COLUMN media_type TEXT;
ALTER TABLE attendance ADD COLUMN department TEXT;
ALTER TABLE attendance ADD COLUMN leave_reason TEXT;
