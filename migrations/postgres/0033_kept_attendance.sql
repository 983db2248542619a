-- Who was in a run that does not go on, and for how long: kept by the cursor, so that questions about everybody's month do not add up
-- all stays. Ids are led by the time, so that the runs of a month lie together.
CREATE TABLE kept_attendance (
    kept_id         uuid NOT NULL,
    item            bigint NOT NULL,
    person          text NOT NULL,
    display_name    text,
    stays           bigint NOT NULL,
    devices         bigint NOT NULL,
    present_ms      bigint NOT NULL,
    first_joined_at timestamptz NOT NULL,
    last_left_at    timestamptz NOT NULL,
    estimated       boolean NOT NULL,
    PRIMARY KEY (kept_id, item)
);

-- Null where a run goes on: then its stays tell it.
ALTER TABLE meetings ADD COLUMN kept_id uuid;

COMMENT ON TABLE kept_attendance IS 'Who was in a run that does not go on, and for how long: person_attendance reads it.';
COMMENT ON COLUMN kept_attendance.kept_id IS 'That of the run in meetings.';
COMMENT ON COLUMN kept_attendance.item IS 'Which of its people.';
COMMENT ON COLUMN kept_attendance.person IS 'Who, as in attendance.';
COMMENT ON COLUMN kept_attendance.display_name IS 'The name that was used last.';
COMMENT ON COLUMN kept_attendance.stays IS 'How many stays there were.';
COMMENT ON COLUMN kept_attendance.devices IS 'The most devices at one moment.';
COMMENT ON COLUMN kept_attendance.present_ms IS 'Milliseconds in the run; two devices at once count once.';
COMMENT ON COLUMN kept_attendance.first_joined_at IS 'When the first stay began.';
COMMENT ON COLUMN kept_attendance.last_left_at IS 'When the last one ended.';
COMMENT ON COLUMN kept_attendance.estimated IS 'Whether it rests on a stay of which nobody told the end.';
COMMENT ON COLUMN meetings.kept_id IS 'Under which id kept_attendance has who was there; null while the run goes on.';

-- The cursor goes through the runs that are there.
INSERT INTO unsettled SELECT subscriber_id, meeting_uuid FROM meetings WHERE stays > 0 ON CONFLICT DO NOTHING;

-- Along the runs, not through all that was ever kept: there are few runs in a question.
CREATE OR REPLACE VIEW person_attendance AS
SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at, k.person,
       k.display_name, k.stays, k.devices, round(k.present_ms / 60000.0, 2)::float8 AS minutes, k.first_joined_at, k.last_left_at,
       false AS still_in, k.estimated
  FROM meetings m CROSS JOIN LATERAL (SELECT * FROM kept_attendance k WHERE k.kept_id = m.kept_id OFFSET 0) AS k
UNION ALL
SELECT subscriber_id, meeting_uuid, meeting_id, began_at, person, display_name, stays,
       CASE WHEN stays = 1 THEN 1
            -- Two stays that overlap are longer together than from the first moment to the last.
            WHEN stays = 2 THEN CASE WHEN spent > last_left_at - first_joined_at THEN 2::bigint ELSE 1 END
            ELSE (SELECT max(devices)
                    FROM (SELECT sum(c.comes) OVER (ORDER BY CASE WHEN c.comes = 1 THEN p.present_from
                                     ELSE greatest(p.present_until, p.present_from + interval '1 millisecond') END, c.comes
                                     ROWS UNBOUNDED PRECEDING) AS devices
                            FROM presence p CROSS JOIN (VALUES (1), (-1)) AS c (comes)
                           WHERE p.subscriber_id = each.subscriber_id AND p.meeting_uuid = each.meeting_uuid
                             AND p.person = each.person) AS moments)
       END AS devices,
       round(extract(epoch FROM CASE WHEN stays = 1 THEN spent
                 WHEN stays = 2 THEN least(spent, last_left_at - first_joined_at)
                 ELSE (SELECT sum(greatest(until - greatest(present_from, before), interval '0'))
                         FROM (SELECT present_from, until, max(until) OVER (ORDER BY present_from
                                                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                                 FROM (SELECT p.present_from,
                                              greatest(p.present_until, p.present_from + interval '1 millisecond') AS until
                                         FROM presence p
                                        WHERE p.subscriber_id = each.subscriber_id AND p.meeting_uuid = each.meeting_uuid
                                          AND p.person = each.person) AS theirs) AS merged) END) / 60, 2)::float8 AS minutes,
       first_joined_at, CASE WHEN NOT still_in THEN last_left_at END AS last_left_at, still_in, estimated
  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at, p.person,
               (array_agg(p.display_name ORDER BY p.display_name IS NULL, p.present_until DESC, p.present_from DESC,
                          p.stay_id DESC))[1] AS display_name,
               count(*) AS stays,
               -- A stay that ends when it begins lasts a millisecond.
               sum(greatest(p.present_until - p.present_from, interval '1 millisecond')) AS spent,
               min(p.present_from) AS first_joined_at,
               max(greatest(p.present_until, p.present_from + interval '1 millisecond')) AS last_left_at,
               bool_or(p.left_at IS NULL) AS still_in, bool_or(p.estimated) AS estimated
          FROM meetings m CROSS JOIN LATERAL (SELECT * FROM presence p
                                               WHERE p.subscriber_id = m.subscriber_id AND p.meeting_uuid = m.meeting_uuid
                                              OFFSET 0) AS p
         WHERE m.kept_id IS NULL AND m.stays > 0
         GROUP BY coalesce(m.started_at, m.first_event_at), m.meeting_uuid, m.subscriber_id, m.meeting_id, p.person) AS each;
