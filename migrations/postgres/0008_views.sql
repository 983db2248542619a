-- What analysts ask most, as views: the same names, columns and answers as in SQLite. Days are UTC's. Conditions on a run,
-- its number, its beginning, a person or a day reach the tables' indexes: windows are partitioned by all of these, and days
-- are looked up one by one. What differs most stands first in a PARTITION BY: that is cheapest to sort.

-- Whoever asks for a run may name its UUID alone.
CREATE INDEX meetings_uuid ON meetings (meeting_uuid);

CREATE FUNCTION convoke_first_id(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid;
COMMENT ON FUNCTION convoke_first_id IS 'The least id of events and stays of that time or later: ids are led by the time.';

-- Stays as all others count them. Who is known by no handle is known by name, or else counts as one of their own. Who has
-- not left is there until now while something was heard of the run in the last 24 hours, else until its last event.
CREATE VIEW presence AS
SELECT a.stay_id, a.subscriber_id, a.meeting_uuid, coalesce(a.person, a.display_name, a.stay_id::text) AS person,
       a.display_name, a.joined_at, a.left_at, coalesce(a.joined_at, a.left_at) AS present_from,
       greatest(coalesce(a.joined_at, a.left_at), coalesce(a.left_at, (
           SELECT CASE WHEN m.last_event_at > now() - interval '1 day'
                       THEN greatest(date_trunc('milliseconds', now()), m.last_event_at) ELSE m.last_event_at END
             FROM meetings m WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid),
           a.joined_at)) AS present_until
  FROM attendance a;

-- A row for each moment at which somebody comes or goes, with how many devices they have in the run from then on. Who
-- leaves in the millisecond in which another joins makes room first; who leaves in that of joining was there for one.
CREATE VIEW person_attendance AS
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, min(display_name) AS display_name,
       count(*) FILTER (WHERE comes = 1) AS stays, max(devices) AS devices,
       round(coalesce(sum(extract(epoch FROM next_at - at)) FILTER (WHERE devices > 0), 0) / 60, 2)::float8 AS minutes,
       min(at) AS first_joined_at, CASE WHEN NOT bool_or(left_at IS NULL) THEN max(at) END AS last_left_at,
       bool_or(left_at IS NULL) AS still_in
  FROM (SELECT *, sum(comes) OVER (moments ROWS UNBOUNDED PRECEDING) AS devices, lead(at) OVER moments AS next_at
          FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at,
                       p.person, p.display_name, p.left_at, d.comes,
                       CASE WHEN d.comes = 1 THEN p.present_from
                            ELSE greatest(p.present_until, p.present_from + interval '1 millisecond') END AS at
                  FROM meetings m JOIN presence p USING (subscriber_id, meeting_uuid)
                 CROSS JOIN (VALUES (1), (-1)) AS d (comes)) AS changes
        WINDOW moments AS (PARTITION BY began_at, meeting_uuid, subscriber_id, meeting_id, person
                           ORDER BY at, comes)) AS moments
 GROUP BY began_at, meeting_uuid, subscriber_id, meeting_id, person;

CREATE VIEW late_joiners AS
SELECT *, round(extract(epoch FROM joined_at - started_at) / 60, 2)::float8 AS minutes_late
  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS started_at,
               p.person, min(p.display_name) AS display_name, min(p.joined_at) AS joined_at
          FROM meetings m JOIN presence p USING (subscriber_id, meeting_uuid)
         WHERE m.started_at IS NOT NULL AND p.joined_at IS NOT NULL
         GROUP BY coalesce(m.started_at, m.first_event_at), m.meeting_uuid, m.subscriber_id, m.meeting_id, p.person) AS first
 WHERE joined_at > started_at + interval '1 minute';

-- The platform tries to deliver an event for 24 hours: an end that has not come after that is not going to.
CREATE VIEW no_end_seen AS
SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at,
       m.last_event_at, round(extract(epoch FROM now() - m.last_event_at) / 3600, 2)::float8 AS silent_hours,
       (SELECT count(*) FROM attendance a
         WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid AND a.closed_by = 'open')
           AS open_stays
  FROM meetings m
 WHERE m.status = 'live' AND m.last_event_at < now() - interval '1 day';

-- From each day on which a run began to the next one.
CREATE VIEW daily_usage AS
WITH RECURSIVE began (day) AS (
    SELECT (SELECT (coalesce(started_at, first_event_at) AT TIME ZONE 'UTC')::date FROM meetings
             ORDER BY coalesce(started_at, first_event_at) LIMIT 1)
    UNION ALL
    SELECT (SELECT (coalesce(m.started_at, m.first_event_at) AT TIME ZONE 'UTC')::date FROM meetings m
             WHERE coalesce(m.started_at, m.first_event_at) >= (began.day + 1)::timestamp AT TIME ZONE 'UTC'
             ORDER BY coalesce(m.started_at, m.first_event_at) LIMIT 1)
      FROM began WHERE began.day IS NOT NULL),
days (day, begins, ends) AS (
    SELECT day, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
      FROM began WHERE day IS NOT NULL)
SELECT days.day, u.subscriber_id, u.meetings, u.participants, u.stays, u.minutes, u.recordings
  FROM days CROSS JOIN LATERAL (
       SELECT subscriber_id, r.meetings, coalesce(p.participants, 0) AS participants, r.stays,
              coalesce(p.minutes, 0) AS minutes, r.recordings
         FROM (SELECT m.subscriber_id, count(*) AS meetings, sum(m.stays)::bigint AS stays,
                      sum(m.recordings)::bigint AS recordings
                 FROM meetings m
                WHERE coalesce(m.started_at, m.first_event_at) >= days.begins
                  AND coalesce(m.started_at, m.first_event_at) < days.ends
                  AND (m.started_at IS NOT NULL OR m.stays > 0)
                GROUP BY m.subscriber_id) AS r
         LEFT JOIN (
               SELECT subscriber_id, count(DISTINCT person) AS participants,
                      round(sum(extract(epoch FROM greatest(present_until - greatest(present_from, before),
                                                            interval '0'))) / 60, 2)::float8 AS minutes
                 FROM (SELECT p.subscriber_id, p.person, p.present_from, p.present_until,
                              max(p.present_until) OVER (
                                  PARTITION BY p.meeting_uuid, p.subscriber_id, p.person ORDER BY p.present_from
                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                         FROM meetings m JOIN presence p USING (subscriber_id, meeting_uuid)
                        WHERE coalesce(m.started_at, m.first_event_at) >= days.begins
                          AND coalesce(m.started_at, m.first_event_at) < days.ends) AS stays
                GROUP BY subscriber_id) AS p USING (subscriber_id)) AS u;

-- From each day on which somebody joined to the next one: ids of stays are led by the time of joining, and those that are
-- not, because it was not told, are few. A stay counts on the day on which it began, and the next.
CREATE VIEW daily_peak AS
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
                                 FROM (SELECT subscriber_id, person, d.comes,
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

-- From each day on which something happened to the next one: ids of events are led by their time.
CREATE VIEW daily_events AS
WITH RECURSIVE happened (day) AS (
    SELECT (SELECT (occurred_at AT TIME ZONE 'UTC')::date FROM events ORDER BY event_id LIMIT 1)
    UNION ALL
    SELECT (SELECT (e.occurred_at AT TIME ZONE 'UTC')::date FROM events e
             WHERE e.event_id >= convoke_first_id((happened.day + 1)::timestamp AT TIME ZONE 'UTC')
             ORDER BY e.event_id LIMIT 1)
      FROM happened WHERE happened.day IS NOT NULL),
days (day, first_id, last_id) AS (
    SELECT day, convoke_first_id(day::timestamp AT TIME ZONE 'UTC'),
           convoke_first_id((day + 1)::timestamp AT TIME ZONE 'UTC')
      FROM happened WHERE day IS NOT NULL)
SELECT days.day, u.subscriber_id, u.event, u.events
  FROM days CROSS JOIN LATERAL (
       SELECT e.subscriber_id, e.event, count(*) AS events FROM events e
        WHERE e.event_id >= days.first_id AND e.event_id < days.last_id
        GROUP BY e.subscriber_id, e.event) AS u;

COMMENT ON VIEW presence IS 'Stays, with who and from when to when they count in the other views.';
COMMENT ON COLUMN presence.stay_id IS 'The stay: see attendance.';
COMMENT ON COLUMN presence.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN presence.meeting_uuid IS 'The run.';
COMMENT ON COLUMN presence.person IS 'Who that is: attendance.person, or else the name, or else the stay. Never null.';
COMMENT ON COLUMN presence.display_name IS 'The name shown in the meeting, in the end.';
COMMENT ON COLUMN presence.joined_at IS 'When it began; null if not known.';
COMMENT ON COLUMN presence.left_at IS 'When it ended; null while it is open.';
COMMENT ON COLUMN presence.present_from IS 'joined_at, or else left_at.';
COMMENT ON COLUMN presence.present_until IS 'left_at; of an open stay, now while something was heard of the run in the last 24 hours, else the run''s last event.';

COMMENT ON VIEW person_attendance IS 'Each person in each run: for how long, on how many devices.';
COMMENT ON COLUMN person_attendance.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN person_attendance.meeting_uuid IS 'The run.';
COMMENT ON COLUMN person_attendance.meeting_id IS 'The meeting''s number.';
COMMENT ON COLUMN person_attendance.began_at IS 'When the run started; if no start came, when its first event happened.';
COMMENT ON COLUMN person_attendance.person IS 'Who that is: attendance.person, or else the name, or else the stay. Never null.';
COMMENT ON COLUMN person_attendance.display_name IS 'The name shown in the meeting; of several, the first in the order of the alphabet.';
COMMENT ON COLUMN person_attendance.stays IS 'How often somebody joined as this person: rows of attendance.';
COMMENT ON COLUMN person_attendance.devices IS 'The most stays at one moment: on two devices at once they are 2.';
COMMENT ON COLUMN person_attendance.minutes IS 'Minutes in the run; on two devices at once they count once. An open stay counts as in presence.';
COMMENT ON COLUMN person_attendance.first_joined_at IS 'When the first stay began.';
COMMENT ON COLUMN person_attendance.last_left_at IS 'When the last stay ended; null while one is open.';
COMMENT ON COLUMN person_attendance.still_in IS 'Whether a stay is open.';

COMMENT ON VIEW late_joiners IS 'Who first joined more than a minute after the run had started.';
COMMENT ON COLUMN late_joiners.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN late_joiners.meeting_uuid IS 'The run.';
COMMENT ON COLUMN late_joiners.meeting_id IS 'The meeting''s number.';
COMMENT ON COLUMN late_joiners.started_at IS 'When the run started first; without a start nobody is late.';
COMMENT ON COLUMN late_joiners.person IS 'Who that is: attendance.person, or else the name, or else the stay. Never null.';
COMMENT ON COLUMN late_joiners.display_name IS 'The name shown in the meeting; of several, the first in the order of the alphabet.';
COMMENT ON COLUMN late_joiners.joined_at IS 'When they first joined.';
COMMENT ON COLUMN late_joiners.minutes_late IS 'Minutes from started_at to joined_at.';

COMMENT ON VIEW no_end_seen IS 'Runs that look live, and of which nothing was heard for 24 hours: an end that was not delivered by then is not going to be.';
COMMENT ON COLUMN no_end_seen.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN no_end_seen.meeting_uuid IS 'The run.';
COMMENT ON COLUMN no_end_seen.meeting_id IS 'The meeting''s number.';
COMMENT ON COLUMN no_end_seen.began_at IS 'When the run started; if no start came, when its first event happened.';
COMMENT ON COLUMN no_end_seen.last_event_at IS 'When the last of its events happened.';
COMMENT ON COLUMN no_end_seen.silent_hours IS 'Hours from then until now.';
COMMENT ON COLUMN no_end_seen.open_stays IS 'How many stays are open in it.';

COMMENT ON VIEW daily_usage IS 'Runs of each UTC day, and of each push configuration. A run counts, with all of its stays and recordings, on the day on which it began. What was only scheduled does not count.';
COMMENT ON COLUMN daily_usage.day IS 'The UTC day.';
COMMENT ON COLUMN daily_usage.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN daily_usage.meetings IS 'How many runs began.';
COMMENT ON COLUMN daily_usage.participants IS 'How many distinct people came to them.';
COMMENT ON COLUMN daily_usage.stays IS 'How many stays they had.';
COMMENT ON COLUMN daily_usage.minutes IS 'Minutes of all people in all of them; on two devices in one run at once they count once.';
COMMENT ON COLUMN daily_usage.recordings IS 'How many recordings were finished.';

COMMENT ON VIEW daily_peak IS 'The most people at one moment of each UTC day, in all runs of a push configuration together. A stay counts on the day on which it began and on the next one, not longer.';
COMMENT ON COLUMN daily_peak.day IS 'The UTC day.';
COMMENT ON COLUMN daily_peak.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN daily_peak.participants IS 'The most distinct people at one moment: on however many devices, in however many runs, each counts once.';
COMMENT ON COLUMN daily_peak.devices IS 'The most stays at one moment.';
COMMENT ON COLUMN daily_peak.peak_at IS 'The first moment at which there were so many people.';

COMMENT ON VIEW daily_events IS 'Events of each UTC day, by type.';
COMMENT ON COLUMN daily_events.day IS 'The UTC day of the events'' own time.';
COMMENT ON COLUMN daily_events.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN daily_events.event IS 'The event type, as sent.';
COMMENT ON COLUMN daily_events.events IS 'How many.';
