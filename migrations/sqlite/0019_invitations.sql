-- Who was invited, and who people are.
CREATE TABLE invitations (
    subscriber_id TEXT NOT NULL,
    meeting_uuid  TEXT NOT NULL,
    -- The user, else the account, the number or the name.
    invitee       TEXT NOT NULL,
    user_uuid     TEXT,
    account       TEXT,
    call_number   TEXT,
    display_name  TEXT,
    department    TEXT,
    -- normal, terminal, outside or mobile
    attendee_type TEXT,
    PRIMARY KEY (subscriber_id, meeting_uuid, invitee)
) WITHOUT ROWID, STRICT;

-- Users who were in meetings, as the platform's directory has them today.
CREATE TABLE people (
    user_uuid  TEXT NOT NULL PRIMARY KEY,
    department TEXT,
    title      TEXT,
    -- When the platform told it; it is asked again when due.
    told_at    TEXT,
    due_at     TEXT NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX people_due ON people (due_at);

-- Few: users of whom neither account nor number is told.
CREATE INDEX attendance_user_alone ON attendance (user_uuid)
 WHERE user_uuid IS NOT NULL AND account IS NULL AND call_number IS NULL;

ALTER TABLE erasures ADD COLUMN invitations INTEGER NOT NULL DEFAULT 0;
ALTER TABLE erasures ADD COLUMN people INTEGER NOT NULL DEFAULT 0;

-- Whoever was invited to a run that was held, and how long they were there. A stay is theirs if it has their user, account or
-- number, or is that of the only user of their account or number; of whom a name alone is known, by the name.
CREATE VIEW invitees AS
SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at, m.over,
       u.value ->> 0 AS invitee, u.value ->> 1 AS user_uuid, u.value ->> 2 AS display_name, u.value ->> 3 AS department,
       u.value ->> 4 AS attendee_type, u.value ->> 5 AS stays, u.value ->> 6 AS minutes, u.value ->> 7 AS first_joined_at
  FROM meetings m, json_each((
       SELECT json_group_array(json_array(invitee, user_uuid, display_name, department, attendee_type, stays, minutes,
                                          first_joined_at))
         FROM (SELECT invitee, user_uuid, display_name, department, attendee_type, count(present_from) AS stays,
                      round(total(max(julianday(present_until) - julianday(max(present_from, coalesce(before, ''))), 0))
                            * 1440, 2) AS minutes,
                      min(present_from) AS first_joined_at
                 FROM (SELECT i.*, p.present_from, p.present_until,
                              max(p.present_until) OVER (
                                  PARTITION BY i.invitee ORDER BY p.present_from
                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                         FROM (SELECT i.*, coalesce(
                                      i.user_uuid,
                                      (SELECT CASE WHEN count(*) = 1 THEN min(k.person) END FROM identities k
                                        WHERE k.subscriber_id = i.subscriber_id AND k.kind = 'account'
                                          AND k.handle = i.account),
                                      (SELECT CASE WHEN count(*) = 1 THEN min(k.person) END FROM identities k
                                        WHERE k.subscriber_id = i.subscriber_id AND k.kind = 'number'
                                          AND k.handle = i.call_number)) AS known,
                                      coalesce(i.user_uuid, i.account, i.call_number) IS NULL AS nameless
                                 FROM invitations i
                                WHERE i.subscriber_id = m.subscriber_id AND i.meeting_uuid = m.meeting_uuid) i
                         LEFT JOIN (SELECT a.person, a.person_by, a.user_uuid, a.account, a.call_number, a.display_name,
                                           s.present_from, s.present_until
                                      FROM attendance a CROSS JOIN presence s USING (subscriber_id, meeting_uuid, stay_id)
                                     WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid) p
                           ON p.person = i.known OR p.user_uuid = i.user_uuid OR p.account = i.account
                           OR p.call_number = i.call_number
                           OR i.nameless AND p.person_by = 'name' AND p.display_name = i.display_name)
                GROUP BY invitee))) AS u
 WHERE m.started_at IS NOT NULL OR m.stays > 0;

-- Who was invited to a run that is over, and was not there.
CREATE VIEW absentees AS
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, invitee, user_uuid, display_name, department, attendee_type
  FROM invitees
 WHERE invitees.over AND stays = 0;

-- Who was in a run, as in person_attendance, with department and title, as they are today.
CREATE VIEW department_attendance AS
SELECT w.subscriber_id, w.meeting_uuid, w.meeting_id, w.began_at, p.department, p.title, w.person, w.display_name, w.stays, w.minutes
  FROM person_attendance w LEFT JOIN people p ON p.user_uuid = w.person;
