-- Who is one person.
ALTER TABLE attendance ADD COLUMN person_by TEXT;

-- What one event tells together: an account and its user, a number and its user, or, where there is no user, a number and its
-- account. By these a stay of which less is told is somebody's.
CREATE TABLE identities (
    subscriber_id TEXT NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('account', 'number', 'number_account')),
    handle        TEXT NOT NULL,
    person        TEXT NOT NULL,
    PRIMARY KEY (subscriber_id, kind, handle, person)
) WITHOUT ROWID, STRICT;
CREATE INDEX identities_person ON identities (person);

-- Runs of which it is to be found out again who was there, because more became known of somebody.
CREATE TABLE unsettled (
    subscriber_id TEXT NOT NULL,
    meeting_uuid  TEXT NOT NULL,
    PRIMARY KEY (subscriber_id, meeting_uuid)
) WITHOUT ROWID, STRICT;

-- Few: stays of which no user is told.
CREATE INDEX attendance_account ON attendance (account) WHERE user_uuid IS NULL AND account IS NOT NULL;
CREATE INDEX attendance_number ON attendance (call_number) WHERE user_uuid IS NULL AND call_number IS NOT NULL;

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

DROP VIEW presence;
CREATE VIEW presence AS
SELECT a.stay_id, a.subscriber_id, a.meeting_uuid, coalesce(a.person, a.display_name, a.stay_id) AS person,
       a.display_name, a.joined_at, a.left_at, coalesce(a.joined_at, a.left_at) AS present_from,
       max(coalesce(a.joined_at, a.left_at), coalesce(a.left_at, (
           SELECT CASE WHEN NOT m.over AND m.last_event_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')
                       THEN max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), m.last_event_at) ELSE m.last_event_at END
             FROM meetings m WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid),
           a.joined_at)) AS present_until,
       a.person_by
  FROM attendance a;

-- The name of a person is the one that was used last.
DROP VIEW person_attendance;
CREATE VIEW person_attendance AS
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, display_name, stays, devices, minutes, first_joined_at,
       CASE WHEN NOT still_in THEN last_left_at END AS last_left_at, still_in
  FROM (SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, first_value(display_name) OVER named AS display_name,
               sum(comes = 1) OVER whole AS stays, max(devices) OVER whole AS devices,
               round(total(CASE WHEN devices > 0 THEN julianday(next_at) - julianday(at) END) OVER whole * 1440, 2)
                   AS minutes,
               min(at) OVER whole AS first_joined_at, max(at) OVER whole AS last_left_at,
               max(left_at IS NULL) OVER whole AS still_in, row_number() OVER whole AS number
          FROM (SELECT *, sum(comes) OVER (moments ROWS UNBOUNDED PRECEDING) AS devices, lead(at) OVER moments AS next_at
                  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id,
                               coalesce(m.started_at, m.first_event_at) AS began_at,
                               p.person, p.display_name, p.left_at, p.stay_id, p.present_from, p.present_until, d.comes,
                               CASE WHEN d.comes = 1 THEN p.present_from
                                    WHEN p.present_until > p.present_from THEN p.present_until
                                    ELSE strftime('%Y-%m-%dT%H:%M:%fZ', p.present_from, '+0.001 seconds') END AS at
                          FROM meetings m CROSS JOIN presence p USING (subscriber_id, meeting_uuid)
                          CROSS JOIN (SELECT 1 AS comes UNION ALL SELECT -1) d)
                WINDOW moments AS (PARTITION BY began_at, meeting_uuid, subscriber_id, meeting_id, person
                                   ORDER BY at, comes))
        WINDOW whole AS (PARTITION BY began_at, meeting_uuid, subscriber_id, meeting_id, person),
               named AS (PARTITION BY began_at, meeting_uuid, subscriber_id, meeting_id, person
                         ORDER BY display_name IS NULL, present_until DESC, present_from DESC, stay_id DESC))
 WHERE number = 1;

DROP VIEW late_joiners;
-- Behind two times of 24 characters and an id of 36.
CREATE VIEW late_joiners AS
SELECT subscriber_id, meeting_uuid, meeting_id, started_at, person, display_name, joined_at,
       round((julianday(joined_at) - julianday(due_at)) * 1440, 2) AS minutes_late, scheduled_start_at
  FROM (SELECT *, max(started_at, coalesce(scheduled_start_at, started_at)) AS due_at
          FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id,
                       coalesce(m.started_at, m.first_event_at) AS started_at, m.scheduled_start_at, p.person,
                       substr(max(CASE WHEN p.display_name IS NOT NULL
                                       THEN p.present_until || p.present_from || p.stay_id || p.display_name END), 85)
                           AS display_name,
                       min(p.joined_at) AS joined_at
                  FROM meetings m CROSS JOIN presence p USING (subscriber_id, meeting_uuid)
                 WHERE m.started_at IS NOT NULL AND p.joined_at IS NOT NULL
                 GROUP BY coalesce(m.started_at, m.first_event_at), m.meeting_uuid, m.subscriber_id, m.meeting_id,
                          m.scheduled_start_at, p.person))
 WHERE joined_at > strftime('%Y-%m-%dT%H:%M:%fZ', due_at, '+1 minute');

-- Of whom a name alone is known, two at one moment in two runs are two.
DROP VIEW daily_peak;
CREATE VIEW daily_peak AS
WITH RECURSIVE joined (day) AS (
    SELECT (SELECT substr(joined_at, 1, 10) FROM attendance WHERE stay_id >= '00000000-0001' ORDER BY stay_id LIMIT 1)
    UNION ALL
    SELECT (SELECT substr(a.joined_at, 1, 10) FROM attendance a
             WHERE a.stay_id >= format('%08x-%04x', unixepoch(joined.day, '+1 day') * 1000 >> 16,
                                                    unixepoch(joined.day, '+1 day') * 1000 & 65535)
             ORDER BY a.stay_id LIMIT 1)
      FROM joined WHERE joined.day < '9999-12-31'),
begun (day) AS (
    SELECT day FROM joined WHERE day IS NOT NULL
    UNION
    SELECT substr(coalesce(joined_at, left_at), 1, 10) FROM attendance WHERE stay_id < '00000000-0001'),
days (day, begins, ends, first_id, last_id) AS (
    SELECT day, day || 'T00:00:00.000Z', coalesce(date(day, '+1 day') || 'T00:00:00.000Z', '9999-12-31T23:59:59.999Z'),
           max('00000000-0001', format('%08x-%04x', unixepoch(day, '-1 day') * 1000 >> 16,
                                                    unixepoch(day, '-1 day') * 1000 & 65535)),
           iif(day < '9999-12-31', format('%08x-%04x', unixepoch(day, '+1 day') * 1000 >> 16,
                                                       unixepoch(day, '+1 day') * 1000 & 65535), 'ffffffff')
      FROM (SELECT day FROM begun UNION SELECT date(day, '+1 day') FROM begun WHERE day < '9999-12-31'))
SELECT days.day, u.value ->> 0 AS subscriber_id, u.value ->> 1 AS participants, u.value ->> 2 AS devices,
       u.value ->> 3 AS peak_at
  FROM days, json_each((
       SELECT json_group_array(json_array(subscriber_id, participants, devices, peak_at))
         FROM (SELECT subscriber_id, max(participants) AS participants, max(devices) AS devices,
                      min(CASE WHEN participants = most THEN at END) AS peak_at
                 FROM (SELECT *, max(participants) OVER (PARTITION BY subscriber_id) AS most
                         FROM (SELECT subscriber_id, at, sum(comes) OVER moments AS devices,
                                      sum(CASE comes WHEN 1 THEN has = 1 ELSE -(has = 0) END) OVER moments AS participants
                                 FROM (SELECT subscriber_id, at, comes,
                                              sum(comes) OVER (PARTITION BY person, subscriber_id ORDER BY at, comes
                                                               ROWS UNBOUNDED PRECEDING) AS has
                                         FROM (SELECT subscriber_id, d.comes,
                                                      CASE WHEN person_by = 'name' THEN person || ' ' || meeting_uuid
                                                           ELSE person END AS person,
                                                      CASE WHEN d.comes = 1 THEN max(present_from, days.begins)
                                                           WHEN present_until > present_from
                                                           THEN min(present_until, days.ends)
                                                           ELSE strftime('%Y-%m-%dT%H:%M:%fZ', present_from, '+0.001 seconds')
                                                       END AS at
                                                 FROM (SELECT * FROM presence
                                                        WHERE stay_id >= days.first_id AND stay_id < days.last_id
                                                        UNION ALL
                                                       SELECT * FROM presence
                                                        WHERE stay_id < '00000000-0001' AND present_from < days.ends
                                                          AND present_from >= date(days.day, '-1 day'))
                                                CROSS JOIN (SELECT 1 AS comes UNION ALL SELECT -1) d
                                                WHERE present_until > days.begins OR present_from >= days.begins))
                               WINDOW moments AS (PARTITION BY subscriber_id ORDER BY at, comes ROWS UNBOUNDED PRECEDING)))
                GROUP BY subscriber_id))) AS u;
