-- Who may watch a recording, as `record.ready` tells from now on.
ALTER TABLE recordings ADD COLUMN viewers TEXT;
