-- Who was invited, and who people are.
CREATE TABLE invitations (
    subscriber_id text NOT NULL,
    meeting_uuid  text NOT NULL,
    invitee       text NOT NULL,
    user_uuid     text,
    account       text,
    call_number   text,
    display_name  text,
    department    text,
    attendee_type text,
    PRIMARY KEY (subscriber_id, meeting_uuid, invitee)
);
COMMENT ON TABLE invitations IS 'Who was invited to a run, as far as the platform tells it (enrich.enabled).';
COMMENT ON COLUMN invitations.invitee IS 'Who that is: the user, else the account, the number or the name.';
COMMENT ON COLUMN invitations.attendee_type IS 'normal, terminal (of a room), outside or mobile.';

CREATE TABLE people (
    user_uuid  text PRIMARY KEY,
    department text,
    title      text,
    told_at    timestamptz,
    due_at     timestamptz NOT NULL
);
CREATE INDEX people_due ON people (due_at);
COMMENT ON TABLE people IS 'Users who were in meetings, as the platform''s directory has them today (enrich.people).';
COMMENT ON COLUMN people.told_at IS 'When the platform told it; null: it knows no such user, or was not asked yet.';
COMMENT ON COLUMN people.due_at IS 'When it is asked again.';

-- Few: users of whom neither account nor number is told.
CREATE INDEX attendance_user_alone ON attendance (user_uuid)
 WHERE user_uuid IS NOT NULL AND account IS NULL AND call_number IS NULL;

ALTER TABLE erasures ADD COLUMN invitations bigint NOT NULL DEFAULT 0, ADD COLUMN people bigint NOT NULL DEFAULT 0;

CREATE VIEW invitees AS
SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at, m.over,
       u.invitee, u.user_uuid, u.display_name, u.department, u.attendee_type, u.stays, u.minutes, u.first_joined_at
  FROM meetings m CROSS JOIN LATERAL (
       SELECT invitee, min(user_uuid) AS user_uuid, min(display_name) AS display_name, min(department) AS department,
              min(attendee_type) AS attendee_type, count(present_from) AS stays,
              round(coalesce(sum(extract(epoch FROM greatest(present_until - greatest(present_from, before),
                                                             interval '0'))), 0) / 60, 2)::float8 AS minutes,
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
                        WHERE i.subscriber_id = m.subscriber_id AND i.meeting_uuid = m.meeting_uuid) AS i
                 LEFT JOIN (SELECT a.person, a.person_by, a.user_uuid, a.account, a.call_number, a.display_name,
                                   s.present_from, s.present_until
                              FROM attendance a JOIN presence s USING (subscriber_id, meeting_uuid, stay_id)
                             WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid) AS p
                   ON p.person = i.known OR p.user_uuid = i.user_uuid OR p.account = i.account
                   OR p.call_number = i.call_number
                   OR i.nameless AND p.person_by = 'name' AND p.display_name = i.display_name) AS stays
        GROUP BY invitee) AS u
 WHERE m.started_at IS NOT NULL OR m.stays > 0;
COMMENT ON VIEW invitees IS 'Whoever was invited to a run that was held, and how long they were there.';
COMMENT ON COLUMN invitees.stays IS 'Stays with their user, account or number, or of the only user of their account or number.';
COMMENT ON COLUMN invitees.minutes IS 'Minutes in the run; two devices at once count once.';

CREATE VIEW absentees AS
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, invitee, user_uuid, display_name, department, attendee_type
  FROM invitees
 WHERE over AND stays = 0;
COMMENT ON VIEW absentees IS 'Who was invited to a run that is over, and was not there.';

CREATE VIEW department_attendance AS
SELECT w.subscriber_id, w.meeting_uuid, w.meeting_id, w.began_at, p.department, p.title, w.person, w.display_name, w.stays, w.minutes
  FROM person_attendance w LEFT JOIN people p ON p.user_uuid = w.person;
COMMENT ON VIEW department_attendance IS 'Who was in a run, as in person_attendance, with department and title.';
COMMENT ON COLUMN invitees.subscriber_id IS 'The subscriber: appID.';
COMMENT ON COLUMN invitees.meeting_uuid IS 'The run.';
COMMENT ON COLUMN invitees.meeting_id IS 'The number of the meeting.';
COMMENT ON COLUMN invitees.began_at IS 'The start, or else the first event of the run.';
COMMENT ON COLUMN invitees.over IS 'Whether nothing more is to come of this run, by all that is known.';
COMMENT ON COLUMN invitees.invitee IS 'Who that is: the user, else the account, the number or the name.';
COMMENT ON COLUMN invitees.user_uuid IS 'The user.';
COMMENT ON COLUMN invitees.display_name IS 'The name, as the platform lists it.';
COMMENT ON COLUMN invitees.department IS 'The department, as the platform told it with the invitation.';
COMMENT ON COLUMN invitees.attendee_type IS 'normal, terminal (of a room), outside or mobile.';
COMMENT ON COLUMN invitees.first_joined_at IS 'When they came first.';
COMMENT ON COLUMN absentees.subscriber_id IS 'The subscriber: appID.';
COMMENT ON COLUMN absentees.meeting_uuid IS 'The run.';
COMMENT ON COLUMN absentees.meeting_id IS 'The number of the meeting.';
COMMENT ON COLUMN absentees.began_at IS 'The start, or else the first event of the run.';
COMMENT ON COLUMN absentees.invitee IS 'Who that is: the user, else the account, the number or the name.';
COMMENT ON COLUMN absentees.user_uuid IS 'The user.';
COMMENT ON COLUMN absentees.display_name IS 'The name, as the platform lists it.';
COMMENT ON COLUMN absentees.department IS 'The department, as the platform told it with the invitation.';
COMMENT ON COLUMN absentees.attendee_type IS 'normal, terminal (of a room), outside or mobile.';
COMMENT ON COLUMN department_attendance.subscriber_id IS 'The subscriber: appID.';
COMMENT ON COLUMN department_attendance.meeting_uuid IS 'The run.';
COMMENT ON COLUMN department_attendance.meeting_id IS 'The number of the meeting.';
COMMENT ON COLUMN department_attendance.began_at IS 'The start, or else the first event of the run.';
COMMENT ON COLUMN department_attendance.department IS 'Today''s. Null: a guest, or not known.';
COMMENT ON COLUMN department_attendance.title IS 'Today''s.';
COMMENT ON COLUMN department_attendance.person IS 'Who that is: see attendance.';
COMMENT ON COLUMN department_attendance.display_name IS 'The name shown in the meeting; of several, the one that was used last.';
COMMENT ON COLUMN department_attendance.stays IS 'How many stays.';
COMMENT ON COLUMN department_attendance.minutes IS 'Minutes in the run; two devices at once count once.';
