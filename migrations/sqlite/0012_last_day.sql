-- The last day that SQLite's dates know has no next one: a view that steps from day to day ends there, and did not.
DROP VIEW daily_events;
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

CREATE VIEW daily_events AS
WITH RECURSIVE happened (day) AS (
    SELECT (SELECT substr(occurred_at, 1, 10) FROM events ORDER BY event_id LIMIT 1)
    UNION ALL
    SELECT (SELECT substr(e.occurred_at, 1, 10) FROM events e
             WHERE e.event_id >= format('%08x-%04x', unixepoch(happened.day, '+1 day') * 1000 >> 16,
                                                     unixepoch(happened.day, '+1 day') * 1000 & 65535)
             ORDER BY e.event_id LIMIT 1)
      FROM happened WHERE happened.day < '9999-12-31'),
days (day, first_id, last_id) AS (
    SELECT day, format('%08x-%04x', unixepoch(day) * 1000 >> 16, unixepoch(day) * 1000 & 65535),
           iif(day < '9999-12-31', format('%08x-%04x', unixepoch(day, '+1 day') * 1000 >> 16,
                                                       unixepoch(day, '+1 day') * 1000 & 65535), 'ffffffff')
      FROM happened WHERE day IS NOT NULL)
SELECT days.day, u.value ->> 0 AS subscriber_id, u.value ->> 1 AS event, u.value ->> 2 AS events
  FROM days, json_each((
       SELECT json_group_array(json_array(subscriber_id, event, events))
         FROM (SELECT subscriber_id, event, count(*) AS events FROM events
                WHERE event_id >= days.first_id AND event_id < days.last_id
                GROUP BY subscriber_id, event))) AS u;
