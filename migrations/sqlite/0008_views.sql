-- What analysts ask most, as views: the same names, columns and answers as in PostgreSQL, where each column has a comment.
-- Days are UTC's. Conditions on a run, its number, its beginning, a person or a day reach the tables' indexes: windows are
-- partitioned by all of these, and days are looked up one by one, through json_each, which is SQLite's LATERAL.

-- Whoever asks for a run may name its UUID alone.
CREATE INDEX meetings_uuid ON meetings (meeting_uuid);

-- Stays as all others count them. Who is known by no handle is known by name, or else counts as one of their own. Who has
-- not left is there until now while something was heard of the run in the last 24 hours, else until its last event.
CREATE VIEW presence AS
SELECT a.stay_id, a.subscriber_id, a.meeting_uuid, coalesce(a.person, a.display_name, a.stay_id) AS person,
       a.display_name, a.joined_at, a.left_at, coalesce(a.joined_at, a.left_at) AS present_from,
       max(coalesce(a.joined_at, a.left_at), coalesce(a.left_at, (
           SELECT CASE WHEN m.last_event_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')
                       THEN max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), m.last_event_at) ELSE m.last_event_at END
             FROM meetings m WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid),
           a.joined_at)) AS present_until
  FROM attendance a;

-- A row for each moment at which somebody comes or goes, with how many devices they have in the run from then on. Who
-- leaves in the millisecond in which another joins makes room first; who leaves in that of joining was there for one.
CREATE VIEW person_attendance AS
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, display_name, stays, devices, minutes, first_joined_at,
       CASE WHEN NOT still_in THEN last_left_at END AS last_left_at, still_in
  FROM (SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, min(display_name) OVER whole AS display_name,
               sum(comes = 1) OVER whole AS stays, max(devices) OVER whole AS devices,
               round(total(CASE WHEN devices > 0 THEN julianday(next_at) - julianday(at) END) OVER whole * 1440, 2)
                   AS minutes,
               min(at) OVER whole AS first_joined_at, max(at) OVER whole AS last_left_at,
               max(left_at IS NULL) OVER whole AS still_in, row_number() OVER whole AS number
          FROM (SELECT *, sum(comes) OVER (moments ROWS UNBOUNDED PRECEDING) AS devices, lead(at) OVER moments AS next_at
                  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id,
                               coalesce(m.started_at, m.first_event_at) AS began_at,
                               p.person, p.display_name, p.left_at, d.comes,
                               CASE WHEN d.comes = 1 THEN p.present_from
                                    WHEN p.present_until > p.present_from THEN p.present_until
                                    ELSE strftime('%Y-%m-%dT%H:%M:%fZ', p.present_from, '+0.001 seconds') END AS at
                          FROM meetings m CROSS JOIN presence p USING (subscriber_id, meeting_uuid)
                          CROSS JOIN (SELECT 1 AS comes UNION ALL SELECT -1) d)
                WINDOW moments AS (PARTITION BY began_at, meeting_uuid, subscriber_id, meeting_id, person
                                   ORDER BY at, comes))
        WINDOW whole AS (PARTITION BY began_at, meeting_uuid, subscriber_id, meeting_id, person))
 WHERE number = 1;

CREATE VIEW late_joiners AS
SELECT *, round((julianday(joined_at) - julianday(started_at)) * 1440, 2) AS minutes_late
  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS started_at,
               p.person, min(p.display_name) AS display_name, min(p.joined_at) AS joined_at
          FROM meetings m CROSS JOIN presence p USING (subscriber_id, meeting_uuid)
         WHERE m.started_at IS NOT NULL AND p.joined_at IS NOT NULL
         GROUP BY coalesce(m.started_at, m.first_event_at), m.meeting_uuid, m.subscriber_id, m.meeting_id, p.person)
 WHERE joined_at > strftime('%Y-%m-%dT%H:%M:%fZ', started_at, '+1 minute');

-- The platform tries to deliver an event for 24 hours: an end that has not come after that is not going to.
CREATE VIEW no_end_seen AS
SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at,
       m.last_event_at, round((julianday('now') - julianday(m.last_event_at)) * 24, 2) AS silent_hours,
       (SELECT count(*) FROM attendance a
         WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid AND a.closed_by = 'open')
           AS open_stays
  FROM meetings m
 WHERE m.status = 'live' AND m.last_event_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day');

-- From each day on which a run began to the next one.
CREATE VIEW daily_usage AS
WITH RECURSIVE days (day) AS (
    SELECT (SELECT substr(coalesce(started_at, first_event_at), 1, 10) FROM meetings
             ORDER BY coalesce(started_at, first_event_at) LIMIT 1)
    UNION ALL
    SELECT (SELECT substr(coalesce(m.started_at, m.first_event_at), 1, 10) FROM meetings m
             WHERE coalesce(m.started_at, m.first_event_at) >= date(days.day, '+1 day')
             ORDER BY coalesce(m.started_at, m.first_event_at) LIMIT 1)
      FROM days WHERE days.day IS NOT NULL)
SELECT days.day, u.value ->> 0 AS subscriber_id, u.value ->> 1 AS meetings, u.value ->> 2 AS participants,
       u.value ->> 3 AS stays, u.value ->> 4 AS minutes, u.value ->> 5 AS recordings
  FROM days, json_each((
       SELECT json_group_array(json_array(
                  subscriber_id, meetings, coalesce(participants, 0), stays, coalesce(minutes, 0.0), recordings))
         FROM (SELECT subscriber_id, count(*) AS meetings, sum(stays) AS stays, sum(recordings) AS recordings
                 FROM meetings
                WHERE coalesce(started_at, first_event_at) >= days.day
                  AND coalesce(started_at, first_event_at) < date(days.day, '+1 day')
                  AND (started_at IS NOT NULL OR stays > 0)
                GROUP BY subscriber_id)
         LEFT JOIN (
               SELECT subscriber_id, count(DISTINCT person) AS participants,
                      round(total(max(julianday(present_until) - julianday(max(present_from, coalesce(before, ''))), 0))
                            * 1440, 2) AS minutes
                 FROM (SELECT p.subscriber_id, p.person, p.present_from, p.present_until,
                              max(p.present_until) OVER (
                                  PARTITION BY p.meeting_uuid, p.subscriber_id, p.person ORDER BY p.present_from
                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                         FROM meetings m CROSS JOIN presence p USING (subscriber_id, meeting_uuid)
                        WHERE coalesce(m.started_at, m.first_event_at) >= days.day
                          AND coalesce(m.started_at, m.first_event_at) < date(days.day, '+1 day'))
                GROUP BY subscriber_id) USING (subscriber_id))) AS u
 WHERE days.day IS NOT NULL;

-- From each day on which somebody joined to the next one: ids of stays are led by the time of joining, and those that are
-- not, because it was not told, are few. A stay counts on the day on which it began, and the next.
CREATE VIEW daily_peak AS
WITH RECURSIVE joined (day) AS (
    SELECT (SELECT substr(joined_at, 1, 10) FROM attendance WHERE stay_id >= '00000000-0001' ORDER BY stay_id LIMIT 1)
    UNION ALL
    SELECT (SELECT substr(a.joined_at, 1, 10) FROM attendance a
             WHERE a.stay_id >= format('%08x-%04x', unixepoch(joined.day, '+1 day') * 1000 >> 16,
                                                    unixepoch(joined.day, '+1 day') * 1000 & 65535)
             ORDER BY a.stay_id LIMIT 1)
      FROM joined WHERE joined.day IS NOT NULL),
begun (day) AS (
    SELECT day FROM joined WHERE day IS NOT NULL
    UNION
    SELECT substr(coalesce(joined_at, left_at), 1, 10) FROM attendance WHERE stay_id < '00000000-0001'),
days (day, begins, ends, first_id, last_id) AS (
    SELECT day, day || 'T00:00:00.000Z', date(day, '+1 day') || 'T00:00:00.000Z',
           max('00000000-0001', format('%08x-%04x', unixepoch(day, '-1 day') * 1000 >> 16,
                                                    unixepoch(day, '-1 day') * 1000 & 65535)),
           format('%08x-%04x', unixepoch(day, '+1 day') * 1000 >> 16, unixepoch(day, '+1 day') * 1000 & 65535)
      FROM (SELECT day FROM begun UNION SELECT date(day, '+1 day') FROM begun))
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
                                         FROM (SELECT subscriber_id, person, d.comes,
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

-- From each day on which something happened to the next one: ids of events are led by their time.
CREATE VIEW daily_events AS
WITH RECURSIVE happened (day) AS (
    SELECT (SELECT substr(occurred_at, 1, 10) FROM events ORDER BY event_id LIMIT 1)
    UNION ALL
    SELECT (SELECT substr(e.occurred_at, 1, 10) FROM events e
             WHERE e.event_id >= format('%08x-%04x', unixepoch(happened.day, '+1 day') * 1000 >> 16,
                                                     unixepoch(happened.day, '+1 day') * 1000 & 65535)
             ORDER BY e.event_id LIMIT 1)
      FROM happened WHERE happened.day IS NOT NULL),
days (day, first_id, last_id) AS (
    SELECT day, format('%08x-%04x', unixepoch(day) * 1000 >> 16, unixepoch(day) * 1000 & 65535),
           format('%08x-%04x', unixepoch(day, '+1 day') * 1000 >> 16, unixepoch(day, '+1 day') * 1000 & 65535)
      FROM happened WHERE day IS NOT NULL)
SELECT days.day, u.value ->> 0 AS subscriber_id, u.value ->> 1 AS event, u.value ->> 2 AS events
  FROM days, json_each((
       SELECT json_group_array(json_array(subscriber_id, event, events))
         FROM (SELECT subscriber_id, event, count(*) AS events FROM events
                WHERE event_id >= days.first_id AND event_id < days.last_id
                GROUP BY subscriber_id, event))) AS u;
