-- What is counted on which day: minutes on the day on which they were spent, and people on each day on which they are there.

-- Of whom nobody told that they left: what counts as the end of their stay is the last that was heard of their run.
ALTER TABLE attendance ADD COLUMN estimated boolean NOT NULL GENERATED ALWAYS AS
    (closed_by = 'open' OR (closed_by = 'meeting_end' AND left_at IS NOT DISTINCT FROM joined_at)) STORED;
COMMENT ON COLUMN attendance.estimated IS 'Whether nobody told when it ended: it is open, or of somebody who came after the end of the run. Where it counts in a figure, it ends with the last event of its run.';

-- Few: stays that reach farther than those that began on a day or on the one before it.
CREATE INDEX attendance_long ON attendance (stay_id) WHERE duration_s > 86400 OR left_at IS NULL;

-- No clock is asked: a figure is the same tomorrow, unless more was heard.
CREATE OR REPLACE VIEW presence AS
SELECT a.stay_id, a.subscriber_id, a.meeting_uuid, coalesce(a.person, a.display_name, a.stay_id::text) AS person,
       a.display_name, a.joined_at, a.left_at, coalesce(a.joined_at, a.left_at) AS present_from,
       greatest(coalesce(a.joined_at, a.left_at), coalesce(a.left_at, (
           SELECT m.last_event_at FROM meetings m
            WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid), a.joined_at)) AS present_until,
       a.person_by, a.estimated, a.duration_s
  FROM attendance a;

CREATE OR REPLACE VIEW person_attendance AS
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person,
       (array_agg(display_name ORDER BY display_name IS NULL, present_until DESC, present_from DESC, stay_id DESC))[1]
           AS display_name,
       count(*) FILTER (WHERE comes = 1) AS stays, max(devices) AS devices,
       round(coalesce(sum(extract(epoch FROM next_at - at)) FILTER (WHERE devices > 0), 0) / 60, 2)::float8 AS minutes,
       min(at) AS first_joined_at, CASE WHEN NOT bool_or(left_at IS NULL) THEN max(at) END AS last_left_at,
       bool_or(left_at IS NULL) AS still_in, bool_or(estimated) AS estimated
  FROM (SELECT *, sum(comes) OVER (moments ROWS UNBOUNDED PRECEDING) AS devices, lead(at) OVER moments AS next_at
          FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at,
                       p.person, p.display_name, p.left_at, p.estimated, p.stay_id, p.present_from, p.present_until, d.comes,
                       CASE WHEN d.comes = 1 THEN p.present_from
                            ELSE greatest(p.present_until, p.present_from + interval '1 millisecond') END AS at
                  FROM meetings m JOIN presence p USING (subscriber_id, meeting_uuid)
                 CROSS JOIN (VALUES (1), (-1)) AS d (comes)) AS changes
        WINDOW moments AS (PARTITION BY began_at, meeting_uuid, subscriber_id, meeting_id, person
                           ORDER BY at, comes)) AS moments
 GROUP BY began_at, meeting_uuid, subscriber_id, meeting_id, person;

-- Each stay on each day that it reaches. Ids of stays are led by the time of joining, so that a day finds those that began on it
-- or within 24 hours before; those that are longer, and those of which the joining was not told, are few, and found apart.
-- A run finds its stays, and these their days.
CREATE VIEW presence_days AS
SELECT d.day, p.subscriber_id, p.meeting_uuid, p.stay_id, p.person, p.display_name,
       greatest(p.present_from, d.begins_at) AS present_from,
       greatest(p.present_from, least(p.left_at, d.ends_at)) AS present_until, p.person_by, p.estimated
  FROM days d JOIN presence p
    ON p.duration_s <= 86400
   AND p.stay_id >= greatest(convoke_first_id(d.begins_at - interval '24 hours'), '00000000-0001-0000-0000-000000000000')
   AND p.stay_id < convoke_first_id(d.ends_at)
   AND d.begins_at > p.present_from - interval '26 hours'
   AND d.begins_at < greatest(p.left_at, p.present_from + interval '1 millisecond')
UNION ALL
SELECT d.day, p.subscriber_id, p.meeting_uuid, p.stay_id, p.person, p.display_name,
       greatest(p.present_from, d.begins_at), greatest(p.present_from, least(p.present_until, d.ends_at)), p.person_by,
       p.estimated
  FROM days d JOIN presence p
    ON (p.duration_s > 86400 OR p.left_at IS NULL) AND p.stay_id >= '00000000-0001-0000-0000-000000000000'
   AND p.stay_id < convoke_first_id(d.ends_at)
   AND d.begins_at > p.present_from - interval '26 hours'
   AND d.begins_at < greatest(p.present_until, p.present_from + interval '1 millisecond')
UNION ALL
SELECT d.day, p.subscriber_id, p.meeting_uuid, p.stay_id, p.person, p.display_name, p.present_from, p.present_until,
       p.person_by, p.estimated
  FROM days d JOIN presence p
    ON p.stay_id < '00000000-0001-0000-0000-000000000000' AND p.present_from >= d.begins_at AND p.present_from < d.ends_at;

CREATE VIEW person_days AS
SELECT day, subscriber_id, meeting_uuid,
       (SELECT m.meeting_id FROM meetings m
         WHERE m.subscriber_id = spent.subscriber_id AND m.meeting_uuid = spent.meeting_uuid) AS meeting_id,
       person,
       (array_agg(display_name ORDER BY display_name IS NULL, present_until DESC, present_from DESC, stay_id DESC))[1]
           AS display_name,
       count(*) AS stays,
       round(sum(extract(epoch FROM greatest(present_until - greatest(present_from, before), interval '0'))) / 60, 2)::float8
           AS minutes,
       min(present_from) AS present_from, max(present_until) AS present_until, bool_or(estimated) AS estimated
  FROM (SELECT *, max(present_until) OVER (PARTITION BY day, meeting_uuid, subscriber_id, person ORDER BY present_from
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM presence_days) AS spent
 GROUP BY day, meeting_uuid, subscriber_id, person;

-- Runs, attendances, stays and recordings of the runs that began on the day; people and minutes of whoever was there on it.
CREATE OR REPLACE VIEW daily_usage AS
SELECT day, subscriber_id, sum(runs)::bigint AS meetings, count(DISTINCT person) AS participants, sum(stays)::bigint AS stays,
       coalesce(round(sum(minutes), 2), 0)::float8 AS minutes, sum(recordings)::bigint AS recordings,
       sum(attendances)::bigint AS attendances,
       (SELECT coalesce(round(sum(extract(epoch FROM greatest(present_until - greatest(present_from, before),
                                                              interval '0'))) / 60, 2), 0)::float8
          FROM (SELECT p.present_from, p.present_until,
                       max(p.present_until) OVER (
                           PARTITION BY p.meeting_uuid, p.person ORDER BY p.present_from
                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                  FROM days d JOIN meetings m
                    ON coalesce(m.started_at, m.first_event_at) >= d.begins_at
                   AND coalesce(m.started_at, m.first_event_at) < d.ends_at
                  JOIN presence p USING (subscriber_id, meeting_uuid)
                 WHERE d.day = used.day AND m.subscriber_id = used.subscriber_id) AS stays) AS run_minutes
  FROM (SELECT d.day, m.subscriber_id, 1 AS runs, m.participants AS attendances, m.stays, m.recordings, NULL AS person,
               NULL::numeric AS minutes
          FROM days d JOIN meetings m
            ON coalesce(m.started_at, m.first_event_at) >= d.begins_at
           AND coalesce(m.started_at, m.first_event_at) < d.ends_at
         WHERE m.started_at IS NOT NULL OR m.stays > 0
        UNION ALL
        SELECT day, subscriber_id, 0, 0, 0, 0, person,
               extract(epoch FROM greatest(present_until - greatest(present_from, before), interval '0')) / 60
          FROM (SELECT *, max(present_until) OVER (PARTITION BY day, meeting_uuid, subscriber_id, person ORDER BY present_from
                                                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                  FROM presence_days) AS spent) AS used
 GROUP BY day, subscriber_id;

-- The most people at one moment of each day on which somebody is there. Of whom a name alone is known, two at one moment in two
-- runs are two.
CREATE OR REPLACE VIEW daily_peak AS
SELECT day, subscriber_id, max(participants) AS participants, max(devices) AS devices,
       min(at) FILTER (WHERE participants = most) AS peak_at
  FROM (SELECT *, max(participants) OVER (PARTITION BY day, subscriber_id) AS most
          FROM (SELECT day, subscriber_id, at, sum(comes) OVER moments AS devices,
                       sum(CASE WHEN comes = 1 AND has = 1 THEN 1 WHEN comes = -1 AND has = 0 THEN -1 ELSE 0 END)
                           OVER moments AS participants
                  FROM (SELECT day, subscriber_id, at, comes,
                               sum(comes) OVER (PARTITION BY day, person, subscriber_id ORDER BY at, comes
                                                ROWS UNBOUNDED PRECEDING) AS has
                          FROM (SELECT p.day, p.subscriber_id, d.comes,
                                       CASE WHEN p.person_by = 'name' THEN p.person || ' ' || p.meeting_uuid
                                            ELSE p.person END AS person,
                                       CASE WHEN d.comes = 1 THEN p.present_from
                                            ELSE greatest(p.present_until, p.present_from + interval '1 millisecond') END AS at
                                  FROM presence_days p CROSS JOIN (VALUES (1), (-1)) AS d (comes)) AS changes
                       ) AS changes
                WINDOW moments AS (PARTITION BY day, subscriber_id ORDER BY at, comes ROWS UNBOUNDED PRECEDING)) AS moments
       ) AS moments
 GROUP BY day, subscriber_id;

CREATE OR REPLACE VIEW daily_events AS
SELECT d.day, u.subscriber_id, u.event, u.events
  FROM days d CROSS JOIN LATERAL (
       SELECT e.subscriber_id, e.event, count(*) AS events FROM events e
        WHERE e.event_id >= convoke_first_id(d.begins_at) AND e.event_id < convoke_first_id(d.ends_at)
        GROUP BY e.subscriber_id, e.event) AS u;

COMMENT ON COLUMN presence.present_until IS 'left_at; of a stay of which no end was told, the last event of its run: the figure is the same tomorrow, unless more is heard.';
COMMENT ON COLUMN presence.estimated IS 'Whether nobody told when it ended: present_until is the last that was heard of the run.';
COMMENT ON COLUMN presence.duration_s IS 'How long it was, in seconds; null while it is open, or if its beginning is not known.';
COMMENT ON COLUMN person_attendance.estimated IS 'Whether the minutes rest on a stay of which nobody told the end.';

COMMENT ON VIEW presence_days IS 'Stays on each day that they reach, with from when to when on that day. Days are those of the table days.';
COMMENT ON COLUMN presence_days.day IS 'The day.';
COMMENT ON COLUMN presence_days.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN presence_days.meeting_uuid IS 'The run.';
COMMENT ON COLUMN presence_days.stay_id IS 'The stay: see attendance.';
COMMENT ON COLUMN presence_days.person IS 'Who that is: see presence.';
COMMENT ON COLUMN presence_days.display_name IS 'The name shown in the meeting, in the end.';
COMMENT ON COLUMN presence_days.present_from IS 'From when, on this day.';
COMMENT ON COLUMN presence_days.present_until IS 'Until when, on this day.';
COMMENT ON COLUMN presence_days.person_by IS 'By what it is known who that is: see attendance.';
COMMENT ON COLUMN presence_days.estimated IS 'Whether nobody told when the stay ended.';

COMMENT ON VIEW person_days IS 'Each person on each day in each run: the minutes that were spent on that day.';
COMMENT ON COLUMN person_days.day IS 'The day, in the zone of the setting reports.time_zone.';
COMMENT ON COLUMN person_days.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN person_days.meeting_uuid IS 'The run.';
COMMENT ON COLUMN person_days.meeting_id IS 'The meeting''s number.';
COMMENT ON COLUMN person_days.person IS 'Who that is: see presence. Never null.';
COMMENT ON COLUMN person_days.display_name IS 'The name shown in the meeting; of several, the one that was used last.';
COMMENT ON COLUMN person_days.stays IS 'How many of their stays reach this day.';
COMMENT ON COLUMN person_days.minutes IS 'Minutes in the run on this day; on two devices at once they count once.';
COMMENT ON COLUMN person_days.present_from IS 'When they were there first on this day.';
COMMENT ON COLUMN person_days.present_until IS 'When they were there last on this day.';
COMMENT ON COLUMN person_days.estimated IS 'Whether the minutes rest on a stay of which nobody told the end.';

COMMENT ON VIEW daily_usage IS 'Each day, and each push configuration: the runs that began on it, with all of their stays and recordings; and the people and minutes of whoever was in meetings on it. What was only scheduled does not count.';
COMMENT ON COLUMN daily_usage.day IS 'The day, in the zone of the setting reports.time_zone.';
COMMENT ON COLUMN daily_usage.participants IS 'How many distinct people were in meetings on this day.';
COMMENT ON COLUMN daily_usage.stays IS 'How many stays the runs had that began on this day.';
COMMENT ON COLUMN daily_usage.minutes IS 'Minutes of all people on this day; on two devices in one run at once they count once.';
COMMENT ON COLUMN daily_usage.recordings IS 'How many recordings of the runs that began on this day were finished.';
COMMENT ON COLUMN daily_usage.attendances IS 'The distinct people of each of the runs that began on this day, together: somebody in two of them counts twice.';
COMMENT ON COLUMN daily_usage.run_minutes IS 'Minutes of all people in the runs that began on this day, whenever they were spent.';
COMMENT ON VIEW daily_peak IS 'The most people at one moment of each day, in all runs of a push configuration together.';
COMMENT ON COLUMN daily_peak.day IS 'The day, in the zone of the setting reports.time_zone.';
COMMENT ON VIEW daily_events IS 'Events of each day, by type.';
COMMENT ON COLUMN daily_events.day IS 'The day of the events'' own time, in the zone of the setting reports.time_zone.';
