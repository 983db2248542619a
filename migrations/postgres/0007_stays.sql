-- Stays in the order of joining, by which their ids are led: a new one lands at the right-hand edge of the key's index. The
-- other index finds those of a run.
ALTER TABLE attendance DROP CONSTRAINT attendance_pkey, ADD PRIMARY KEY (stay_id);
CREATE INDEX attendance_run ON attendance (meeting_uuid);

-- In a run that goes on, stays without a left are open again.
UPDATE attendance a SET left_at = NULL, duration_s = NULL, closed_by = 'open'
  FROM meetings m
 WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid AND m.status = 'live'
   AND a.closed_by = 'meeting_end';

COMMENT ON COLUMN attendance.closed_by IS 'left (somebody left), meeting_end (the run ended before a left came) or open; while a run goes on after its end, who did not leave is open again.';

-- Lists, newest first, and days; a meeting by its number; what is on now.
CREATE INDEX meetings_begun ON meetings (coalesce(started_at, first_event_at), meeting_uuid);
CREATE INDEX meetings_number ON meetings (meeting_id) WHERE meeting_id IS NOT NULL;
CREATE INDEX meetings_live ON meetings (coalesce(started_at, first_event_at)) WHERE status = 'live';
