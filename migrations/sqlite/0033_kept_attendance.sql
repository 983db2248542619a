-- Who was in a run that does not go on, and for how long: kept by the cursor, so that questions about everybody's month do not add up
-- all stays. Ids are led by the time, so that the runs of a month lie together.
CREATE TABLE kept_attendance (
    kept_id         TEXT NOT NULL,
    item            INTEGER NOT NULL,
    person          TEXT NOT NULL,
    display_name    TEXT,
    stays           INTEGER NOT NULL,
    devices         INTEGER NOT NULL,
    present_ms      INTEGER NOT NULL,
    first_joined_at TEXT NOT NULL,
    last_left_at    TEXT NOT NULL,
    estimated       INTEGER NOT NULL,
    PRIMARY KEY (kept_id, item)
) WITHOUT ROWID, STRICT;

-- Null where a run goes on: then its stays tell it.
ALTER TABLE meetings ADD COLUMN kept_id TEXT;

-- The cursor goes through the runs that are there.
INSERT INTO unsettled SELECT subscriber_id, meeting_uuid FROM meetings WHERE stays > 0 ON CONFLICT DO NOTHING;

DROP VIEW person_attendance;
CREATE VIEW person_attendance AS
SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at, k.person,
       k.display_name, k.stays, k.devices, round(k.present_ms / 60000.0, 2) AS minutes, k.first_joined_at, k.last_left_at,
       0 AS still_in, k.estimated
  FROM meetings m CROSS JOIN kept_attendance k ON k.kept_id = m.kept_id
UNION ALL
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, display_name, stays,
       CASE WHEN stays = 1 THEN 1
            -- Two stays that overlap are longer together than from the first moment to the last.
            WHEN stays = 2 THEN 1 + (spent_s - (julianday(last_left_at) - julianday(first_joined_at)) * 86400 > 0.0005)
            ELSE (SELECT max(devices)
                    FROM (SELECT sum(comes) OVER (ORDER BY at, comes ROWS UNBOUNDED PRECEDING) AS devices
                            FROM (SELECT c.comes,
                                         CASE WHEN c.comes = 1 THEN p.present_from
                                              WHEN p.present_until > p.present_from THEN p.present_until
                                              ELSE strftime('%Y-%m-%dT%H:%M:%fZ', p.present_from, '+0.001 seconds')
                                          END AS at
                                    FROM presence p CROSS JOIN (SELECT 1 AS comes UNION ALL SELECT -1) c
                                   WHERE p.subscriber_id = each.subscriber_id AND p.meeting_uuid = each.meeting_uuid
                                     AND p.person = each.person)))
       END AS devices,
       round(CASE WHEN stays = 1 THEN spent_s
                  WHEN stays = 2 THEN min(spent_s, (julianday(last_left_at) - julianday(first_joined_at)) * 86400)
                  ELSE (SELECT total(max(until - max(since, coalesce(before, 0)), 0))
                          FROM (SELECT since, until, max(until) OVER (ORDER BY since
                                                                      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                                  FROM (SELECT julianday(p.present_from) * 86400 AS since,
                                               julianday(p.present_from) * 86400
                                                   + max((julianday(p.present_until) - julianday(p.present_from)) * 86400, 0.001)
                                                   AS until
                                          FROM presence p
                                         WHERE p.subscriber_id = each.subscriber_id AND p.meeting_uuid = each.meeting_uuid
                                           AND p.person = each.person)))
             END / 60, 2) AS minutes,
       first_joined_at, CASE WHEN NOT still_in THEN last_left_at END AS last_left_at, still_in, estimated
  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at, p.person,
               substr(max(CASE WHEN p.display_name IS NOT NULL
                               THEN p.present_until || p.present_from || p.stay_id || p.display_name END), 85) AS display_name,
               count(*) AS stays,
               -- A stay that ends when it begins lasts a millisecond.
               total(max(coalesce(p.duration_s, (julianday(p.present_until) - julianday(p.present_from)) * 86400), 0.001))
                   AS spent_s,
               min(p.present_from) AS first_joined_at,
               max(CASE WHEN p.present_until > p.present_from THEN p.present_until
                        ELSE strftime('%Y-%m-%dT%H:%M:%fZ', p.present_from, '+0.001 seconds') END) AS last_left_at,
               max(p.left_at IS NULL) AS still_in, max(p.estimated) AS estimated
          FROM meetings m CROSS JOIN presence p USING (subscriber_id, meeting_uuid)
         WHERE m.kept_id IS NULL AND m.stays > 0
         GROUP BY coalesce(m.started_at, m.first_event_at), m.meeting_uuid, m.subscriber_id, m.meeting_id, p.person) AS each;
