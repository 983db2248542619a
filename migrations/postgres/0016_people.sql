-- Who is one person.
ALTER TABLE attendance ADD COLUMN person_by text;

-- What one event tells together: an account and its user, a number and its user, or, where there is no user, a number and its
-- account. By these a stay of which less is told is somebody's.
CREATE TABLE identities (
    subscriber_id text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('account', 'number', 'number_account')),
    handle        text NOT NULL,
    person        text NOT NULL,
    PRIMARY KEY (subscriber_id, kind, handle, person)
);
CREATE INDEX identities_person ON identities (person);

-- Runs of which it is to be found out again who was there, because more became known of somebody.
CREATE TABLE unsettled (
    subscriber_id text NOT NULL,
    meeting_uuid  text NOT NULL,
    PRIMARY KEY (subscriber_id, meeting_uuid)
);

-- Few: stays of which no user is told.
CREATE INDEX attendance_account ON attendance USING hash (account) WHERE user_uuid IS NULL AND account IS NOT NULL;
CREATE INDEX attendance_number ON attendance USING hash (call_number) WHERE user_uuid IS NULL AND call_number IS NOT NULL;

-- As the tables know it, which may be more than the log still does; the cursor goes through all runs once.
INSERT INTO identities
SELECT subscriber_id, 'account', account, user_uuid FROM attendance
 WHERE octet_length(account) <= 512 AND octet_length(user_uuid) <= 512
UNION
SELECT subscriber_id, 'number', call_number, user_uuid FROM attendance
 WHERE octet_length(call_number) <= 512 AND octet_length(user_uuid) <= 512
UNION
SELECT subscriber_id, 'number_account', call_number, account FROM attendance
 WHERE octet_length(call_number) <= 512 AND octet_length(account) <= 512 AND user_uuid IS NULL;
INSERT INTO unsettled SELECT subscriber_id, meeting_uuid FROM meetings WHERE stays > 0;

COMMENT ON COLUMN attendance.person IS 'Who that is: the user; without one the person whose account or number it shares, if that is one person; else the account, the number, the name (stays of one name that overlap are two people: the second is "name (2)") or the participant.';
COMMENT ON COLUMN attendance.person_by IS 'By what that is known, the surest first: user, account, number, name or participant.';

CREATE OR REPLACE VIEW presence AS
SELECT a.stay_id, a.subscriber_id, a.meeting_uuid, coalesce(a.person, a.display_name, a.stay_id::text) AS person,
       a.display_name, a.joined_at, a.left_at, coalesce(a.joined_at, a.left_at) AS present_from,
       greatest(coalesce(a.joined_at, a.left_at), coalesce(a.left_at, (
           SELECT CASE WHEN NOT m.over AND m.last_event_at > now() - interval '1 day'
                       THEN greatest(date_trunc('milliseconds', now()), m.last_event_at) ELSE m.last_event_at END
             FROM meetings m WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid),
           a.joined_at)) AS present_until,
       a.person_by
  FROM attendance a;
COMMENT ON COLUMN presence.person IS 'Who that is: attendance.person, or else the stay. Never null.';
COMMENT ON COLUMN presence.person_by IS 'By what that is known: see attendance.';

-- The name of a person is the one that was used last.
CREATE OR REPLACE VIEW person_attendance AS
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, (array_agg(display_name ORDER BY display_name IS NULL, present_until DESC, present_from DESC, stay_id DESC))[1]
           AS display_name,
       count(*) FILTER (WHERE comes = 1) AS stays, max(devices) AS devices,
       round(coalesce(sum(extract(epoch FROM next_at - at)) FILTER (WHERE devices > 0), 0) / 60, 2)::float8 AS minutes,
       min(at) AS first_joined_at, CASE WHEN NOT bool_or(left_at IS NULL) THEN max(at) END AS last_left_at,
       bool_or(left_at IS NULL) AS still_in
  FROM (SELECT *, sum(comes) OVER (moments ROWS UNBOUNDED PRECEDING) AS devices, lead(at) OVER moments AS next_at
          FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at,
                       p.person, p.display_name, p.left_at, p.stay_id, p.present_from, p.present_until, d.comes,
                       CASE WHEN d.comes = 1 THEN p.present_from
                            ELSE greatest(p.present_until, p.present_from + interval '1 millisecond') END AS at
                  FROM meetings m JOIN presence p USING (subscriber_id, meeting_uuid)
                 CROSS JOIN (VALUES (1), (-1)) AS d (comes)) AS changes
        WINDOW moments AS (PARTITION BY began_at, meeting_uuid, subscriber_id, meeting_id, person
                           ORDER BY at, comes)) AS moments
 GROUP BY began_at, meeting_uuid, subscriber_id, meeting_id, person;
CREATE OR REPLACE VIEW late_joiners AS
SELECT subscriber_id, meeting_uuid, meeting_id, started_at, person, display_name, joined_at,
       round(extract(epoch FROM joined_at - greatest(started_at, scheduled_start_at)) / 60, 2)::float8 AS minutes_late,
       scheduled_start_at
  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS started_at,
               m.scheduled_start_at, p.person, (array_agg(p.display_name ORDER BY p.display_name IS NULL, p.present_until DESC, p.present_from DESC,
                         p.stay_id DESC))[1] AS display_name, min(p.joined_at) AS joined_at
          FROM meetings m JOIN presence p USING (subscriber_id, meeting_uuid)
         WHERE m.started_at IS NOT NULL AND p.joined_at IS NOT NULL
         GROUP BY coalesce(m.started_at, m.first_event_at), m.meeting_uuid, m.subscriber_id, m.meeting_id,
                  m.scheduled_start_at, p.person) AS first
 WHERE joined_at > greatest(started_at, scheduled_start_at) + interval '1 minute';
COMMENT ON COLUMN person_attendance.display_name IS 'The name shown in the meeting; of several, the one that was used last.';
COMMENT ON COLUMN late_joiners.display_name IS 'The name shown in the meeting; of several, the one that was used last.';

-- Of whom a name alone is known, two at one moment in two runs are two.
CREATE OR REPLACE VIEW daily_peak AS
WITH RECURSIVE joined (day) AS (
    SELECT (SELECT (joined_at AT TIME ZONE 'UTC')::date FROM attendance
             WHERE stay_id >= '00000000-0001-0000-0000-000000000000' ORDER BY stay_id LIMIT 1)
    UNION ALL
    SELECT (SELECT (a.joined_at AT TIME ZONE 'UTC')::date FROM attendance a
             WHERE a.stay_id >= convoke_first_id((joined.day + 1)::timestamp AT TIME ZONE 'UTC')
             ORDER BY a.stay_id LIMIT 1)
      FROM joined WHERE joined.day IS NOT NULL),
begun (day) AS (
    SELECT day FROM joined WHERE day IS NOT NULL
    UNION
    SELECT (coalesce(joined_at, left_at) AT TIME ZONE 'UTC')::date FROM attendance
     WHERE stay_id < '00000000-0001-0000-0000-000000000000'),
days (day, before, begins, ends) AS (
    SELECT day, (day - 1)::timestamp AT TIME ZONE 'UTC', day::timestamp AT TIME ZONE 'UTC',
           (day + 1)::timestamp AT TIME ZONE 'UTC'
      FROM (SELECT day FROM begun UNION SELECT day + 1 FROM begun) AS touched)
SELECT days.day, u.subscriber_id, u.participants, u.devices, u.peak_at
  FROM days CROSS JOIN LATERAL (
       SELECT subscriber_id, max(participants) AS participants, max(devices) AS devices,
              min(at) FILTER (WHERE participants = most) AS peak_at
         FROM (SELECT *, max(participants) OVER (PARTITION BY subscriber_id) AS most
                 FROM (SELECT subscriber_id, at, sum(comes) OVER moments AS devices,
                              sum(CASE WHEN comes = 1 AND has = 1 THEN 1 WHEN comes = -1 AND has = 0 THEN -1 ELSE 0 END)
                                  OVER moments AS participants
                         FROM (SELECT subscriber_id, at, comes,
                                      sum(comes) OVER (PARTITION BY person, subscriber_id ORDER BY at, comes
                                                       ROWS UNBOUNDED PRECEDING) AS has
                                 FROM (SELECT subscriber_id, d.comes,
                                              CASE WHEN person_by = 'name' THEN person || ' ' || meeting_uuid
                                                   ELSE person END AS person,
                                              CASE WHEN d.comes = 1 THEN greatest(present_from, days.begins)
                                                   ELSE least(greatest(present_until,
                                                                       present_from + interval '1 millisecond'),
                                                              days.ends) END AS at
                                         FROM (SELECT * FROM presence
                                                WHERE stay_id >= greatest(convoke_first_id(days.before),
                                                                          '00000000-0001-0000-0000-000000000000')
                                                  AND stay_id < convoke_first_id(days.ends)
                                                UNION ALL
                                               SELECT * FROM presence
                                                WHERE stay_id < '00000000-0001-0000-0000-000000000000'
                                                  AND present_from < days.ends AND present_from >= days.before) AS p
                                        CROSS JOIN (VALUES (1), (-1)) AS d (comes)
                                        WHERE present_until > days.begins OR present_from >= days.begins) AS changes
                              ) AS changes
                       WINDOW moments AS (PARTITION BY subscriber_id ORDER BY at, comes ROWS UNBOUNDED PRECEDING)
                      ) AS moments
              ) AS moments
        GROUP BY subscriber_id) AS u;
