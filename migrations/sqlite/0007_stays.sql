-- Stays in the order of joining, by which their ids are led: a new one lands at the table's right-hand edge, and those of a
-- day lie together. The index finds those of a run.
CREATE TABLE stays (
    stay_id        TEXT NOT NULL PRIMARY KEY,
    subscriber_id  TEXT NOT NULL,
    meeting_uuid   TEXT NOT NULL,
    meeting_id     TEXT,
    participant_id TEXT,
    person         TEXT,
    user_uuid      TEXT,
    account        TEXT,
    display_name   TEXT,
    call_number    TEXT,
    user_agent     TEXT,
    role           TEXT,
    joined_at      TEXT,
    left_at        TEXT,
    duration_s     REAL,
    closed_by      TEXT NOT NULL,
    internal       TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- In a run that goes on, stays without a left are open again.
INSERT INTO stays
SELECT stay_id, subscriber_id, meeting_uuid, meeting_id, participant_id, person, user_uuid, account, display_name,
       call_number, user_agent, role, joined_at, CASE WHEN NOT opens THEN left_at END,
       CASE WHEN NOT opens THEN duration_s END, CASE WHEN opens THEN 'open' ELSE closed_by END, internal
  FROM (SELECT a.*, a.closed_by = 'meeting_end' AND EXISTS
                    (SELECT 1 FROM meetings m WHERE m.subscriber_id = a.subscriber_id
                        AND m.meeting_uuid = a.meeting_uuid AND m.status = 'live') AS opens
          FROM attendance a)
 ORDER BY stay_id;

DROP TABLE attendance;
ALTER TABLE stays RENAME TO attendance;
CREATE INDEX attendance_run ON attendance (meeting_uuid);

-- Lists, newest first, and days; a meeting by its number; what is on now.
CREATE INDEX meetings_begun ON meetings (coalesce(started_at, first_event_at), meeting_uuid);
CREATE INDEX meetings_number ON meetings (meeting_id) WHERE meeting_id IS NOT NULL;
CREATE INDEX meetings_live ON meetings (coalesce(started_at, first_event_at)) WHERE status = 'live';
