-- What is counted on which day: minutes on the day on which they were spent, and people on each day on which they are there.

-- Of whom nobody told that they left: what counts as the end of their stay is the last that was heard of their run.
ALTER TABLE attendance ADD COLUMN estimated INTEGER
    GENERATED ALWAYS AS (closed_by = 'open' OR (closed_by = 'meeting_end' AND left_at IS joined_at)) VIRTUAL;

-- Few: stays that reach farther than those that began on a day or on the one before it.
CREATE INDEX attendance_long ON attendance (stay_id) WHERE duration_s > 86400 OR left_at IS NULL;

-- No clock is asked: a figure is the same tomorrow, unless more was heard.
DROP VIEW presence;
CREATE VIEW presence AS
SELECT a.stay_id, a.subscriber_id, a.meeting_uuid, coalesce(a.person, a.display_name, a.stay_id) AS person,
       a.display_name, a.joined_at, a.left_at, coalesce(a.joined_at, a.left_at) AS present_from,
       max(coalesce(a.joined_at, a.left_at), coalesce(a.left_at, (
           SELECT m.last_event_at FROM meetings m
            WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid), a.joined_at)) AS present_until,
       a.person_by, a.estimated, a.duration_s
  FROM attendance a;

DROP VIEW person_attendance;
CREATE VIEW person_attendance AS
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, display_name, stays, devices, minutes, first_joined_at,
       CASE WHEN NOT still_in THEN last_left_at END AS last_left_at, still_in, estimated
  FROM (SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, first_value(display_name) OVER named AS display_name,
               sum(comes = 1) OVER whole AS stays, max(devices) OVER whole AS devices,
               round(total(CASE WHEN devices > 0 THEN julianday(next_at) - julianday(at) END) OVER whole * 1440, 2)
                   AS minutes,
               min(at) OVER whole AS first_joined_at, max(at) OVER whole AS last_left_at,
               max(left_at IS NULL) OVER whole AS still_in, max(estimated) OVER whole AS estimated,
               row_number() OVER whole AS number
          FROM (SELECT *, sum(comes) OVER (moments ROWS UNBOUNDED PRECEDING) AS devices, lead(at) OVER moments AS next_at
                  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id,
                               coalesce(m.started_at, m.first_event_at) AS began_at,
                               p.person, p.display_name, p.left_at, p.estimated, p.stay_id, p.present_from, p.present_until,
                               d.comes,
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

-- Each stay on each day that it reaches. Ids of stays are led by the time of joining, so that a day finds those that began on it
-- or within 24 hours before; those that are longer, and those of which the joining was not told, are few, and found apart.
-- A run finds its stays, and these their days.
CREATE VIEW presence_days AS
SELECT d.day, p.subscriber_id, p.meeting_uuid, p.stay_id, p.person, p.display_name,
       max(p.present_from, d.begins_at) AS present_from, max(p.present_from, min(p.present_until, d.ends_at)) AS present_until,
       p.person_by, p.estimated
  FROM days d JOIN presence p
    ON ((p.duration_s <= 86400
         AND p.stay_id >= max('00000000-0001', format('%08x-%04x', (unixepoch(d.begins_at) - 86400) * 1000 >> 16,
                                                                   (unixepoch(d.begins_at) - 86400) * 1000 & 65535))
         AND p.stay_id < format('%08x-%04x', unixepoch(d.ends_at) * 1000 >> 16, unixepoch(d.ends_at) * 1000 & 65535))
        OR ((p.duration_s > 86400 OR p.left_at IS NULL)
            AND p.stay_id < format('%08x-%04x', unixepoch(d.ends_at) * 1000 >> 16, unixepoch(d.ends_at) * 1000 & 65535))
        OR p.stay_id < '00000000-0001')
   AND p.present_from < d.ends_at AND (p.present_until > d.begins_at OR p.present_from >= d.begins_at)
   AND d.day >= date(p.present_from, '-1 day') AND d.day <= date(p.present_until, '+1 day');

CREATE VIEW person_days AS
SELECT day, subscriber_id, meeting_uuid,
       (SELECT m.meeting_id FROM meetings m
         WHERE m.subscriber_id = spent.subscriber_id AND m.meeting_uuid = spent.meeting_uuid) AS meeting_id,
       person, display_name, stays, minutes, present_from, present_until, estimated
  FROM (SELECT day, subscriber_id, meeting_uuid, person, first_value(display_name) OVER named AS display_name,
               count(*) OVER whole AS stays,
               round(total(max(julianday(present_until) - julianday(max(present_from, coalesce(before, ''))), 0)) OVER whole
                     * 1440, 2) AS minutes,
               min(present_from) OVER whole AS present_from, max(present_until) OVER whole AS present_until,
               max(estimated) OVER whole AS estimated, row_number() OVER whole AS number
          FROM (SELECT *, max(present_until) OVER (PARTITION BY person, day, meeting_uuid, subscriber_id
                                                   ORDER BY present_from
                                                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                  FROM presence_days)
        WINDOW whole AS (PARTITION BY person, day, meeting_uuid, subscriber_id),
               named AS (PARTITION BY person, day, meeting_uuid, subscriber_id
                         ORDER BY display_name IS NULL, present_until DESC, present_from DESC, stay_id DESC)) AS spent
 WHERE number = 1;

-- Runs, attendances, stays and recordings of the runs that began on the day; people and minutes of whoever was there on it.
DROP VIEW daily_usage;
CREATE VIEW daily_usage AS
SELECT d.day, u.value ->> 0 AS subscriber_id, u.value ->> 1 AS meetings, u.value ->> 2 AS participants,
       u.value ->> 3 AS stays, u.value ->> 4 AS minutes, u.value ->> 5 AS recordings, u.value ->> 6 AS attendances,
       (SELECT round(total(max(julianday(present_until) - julianday(max(present_from, coalesce(before, ''))), 0)) * 1440, 2)
          FROM (SELECT p.present_from, p.present_until,
                       max(p.present_until) OVER (PARTITION BY p.person, p.meeting_uuid ORDER BY p.present_from
                                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                  FROM meetings m CROSS JOIN presence p USING (subscriber_id, meeting_uuid)
                 WHERE coalesce(m.started_at, m.first_event_at) >= +d.begins_at
                   AND coalesce(m.started_at, m.first_event_at) < +d.ends_at
                   AND +m.subscriber_id = u.value ->> 0)) AS run_minutes
  FROM days d, json_each((
       SELECT json_group_array(json_array(
                  subscriber_id, meetings, participants, stays, minutes, recordings, attendances))
         FROM (SELECT subscriber_id, sum(runs) AS meetings, sum(participants) AS participants, sum(stays) AS stays,
                      total(minutes) AS minutes, sum(recordings) AS recordings, sum(attendances) AS attendances
                 FROM (SELECT m.subscriber_id, count(*) AS runs, 0 AS participants, sum(m.stays) AS stays, 0.0 AS minutes,
                              sum(m.recordings) AS recordings, sum(m.participants) AS attendances
                         FROM meetings m
                        WHERE coalesce(m.started_at, m.first_event_at) >= +d.begins_at
                          AND coalesce(m.started_at, m.first_event_at) < +d.ends_at
                          AND (m.started_at IS NOT NULL OR m.stays > 0)
                        GROUP BY m.subscriber_id
                       UNION ALL
                       SELECT subscriber_id, 0, count(DISTINCT person), 0,
                              round(total(max(julianday(present_until) - julianday(max(present_from, coalesce(before, ''))),
                                              0)) * 1440, 2), 0, 0
                         FROM (SELECT p.subscriber_id, p.person, p.present_from, p.present_until,
                                      max(p.present_until) OVER (PARTITION BY p.person, p.meeting_uuid, p.subscriber_id
                                                                 ORDER BY p.present_from
                                                                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                                 FROM presence_days p WHERE p.day = d.day)
                        GROUP BY subscriber_id)
                GROUP BY subscriber_id))) AS u;

-- The most people at one moment of each day on which somebody is there. Of whom a name alone is known, two at one moment in two
-- runs are two.
DROP VIEW daily_peak;
CREATE VIEW daily_peak AS
SELECT d.day, u.value ->> 0 AS subscriber_id, u.value ->> 1 AS participants, u.value ->> 2 AS devices,
       u.value ->> 3 AS peak_at
  FROM days d, json_each((
       SELECT json_group_array(json_array(subscriber_id, participants, devices, peak_at))
         FROM (SELECT subscriber_id, max(participants) AS participants, max(devices) AS devices,
                      min(CASE WHEN participants = most THEN at END) AS peak_at
                 FROM (SELECT *, max(participants) OVER (PARTITION BY subscriber_id) AS most
                         FROM (SELECT subscriber_id, at, sum(comes) OVER moments AS devices,
                                      sum(CASE comes WHEN 1 THEN has = 1 ELSE -(has = 0) END) OVER moments AS participants
                                 FROM (SELECT subscriber_id, at, comes,
                                              sum(comes) OVER (PARTITION BY person, subscriber_id ORDER BY at, comes
                                                               ROWS UNBOUNDED PRECEDING) AS has
                                         FROM (SELECT p.subscriber_id, c.comes,
                                                      CASE WHEN p.person_by = 'name' THEN p.person || ' ' || p.meeting_uuid
                                                           ELSE p.person END AS person,
                                                      CASE WHEN c.comes = 1 THEN p.present_from
                                                           WHEN p.present_until > p.present_from THEN p.present_until
                                                           ELSE strftime('%Y-%m-%dT%H:%M:%fZ', p.present_from, '+0.001 seconds')
                                                       END AS at
                                                 FROM presence_days p CROSS JOIN (SELECT 1 AS comes UNION ALL SELECT -1) c
                                                WHERE p.day = d.day))
                               WINDOW moments AS (PARTITION BY subscriber_id ORDER BY at, comes ROWS UNBOUNDED PRECEDING)))
                GROUP BY subscriber_id))) AS u;

DROP VIEW daily_events;
CREATE VIEW daily_events AS
SELECT d.day, u.value ->> 0 AS subscriber_id, u.value ->> 1 AS event, u.value ->> 2 AS events
  FROM days d, json_each((
       SELECT json_group_array(json_array(subscriber_id, event, events))
         FROM (SELECT subscriber_id, event, count(*) AS events FROM events
                WHERE event_id >= format('%08x-%04x', unixepoch(d.begins_at) * 1000 >> 16,
                                                      unixepoch(d.begins_at) * 1000 & 65535)
                  AND event_id < format('%08x-%04x', unixepoch(d.ends_at) * 1000 >> 16,
                                                     unixepoch(d.ends_at) * 1000 & 65535)
                GROUP BY subscriber_id, event))) AS u;
