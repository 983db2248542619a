-- What is over, the plan of a meeting apart from what came of it, and who is its host.
ALTER TABLE enrichments ADD COLUMN host_user_uuid TEXT;
ALTER TABLE enrichments ADD COLUMN conference_type TEXT;
ALTER TABLE enrichments ADD COLUMN webinar INTEGER;
ALTER TABLE meetings ADD COLUMN host_user_uuid TEXT;
ALTER TABLE meetings ADD COLUMN conference_type TEXT;
ALTER TABLE meetings ADD COLUMN webinar INTEGER;
-- Whether another run of its number has started since, as far as that matters: what counts is `over`.
ALTER TABLE meetings ADD COLUMN succeeded INTEGER NOT NULL DEFAULT 0;
-- Whether nothing more is to come of this run, by all that is known.
ALTER TABLE meetings ADD COLUMN over INTEGER GENERATED ALWAYS AS (status NOT IN ('scheduled', 'live') OR succeeded) VIRTUAL;

DROP TRIGGER meetings_enriched;
CREATE TRIGGER meetings_enriched AFTER INSERT ON meetings
    WHEN EXISTS (SELECT 1 FROM enrichments
                  WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid)
BEGIN
    UPDATE meetings SET (subject, scheduled_start_at, scheduled_end_at, host, corp_id, host_user_uuid, conference_type,
                         webinar) =
           (SELECT subject, scheduled_start_at, scheduled_end_at, host, corp_id, host_user_uuid, conference_type, webinar
              FROM enrichments WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid)
     WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid;
END;

-- Of a run that was over the platform tells when it was held, in whole minutes, and that is no plan.
UPDATE enrichments AS e SET scheduled_start_at = NULL, scheduled_end_at = NULL
 WHERE scheduled_start_at IS NOT NULL
   AND (status IN ('ended', 'concluded')
        OR EXISTS (SELECT 1 FROM meetings m
                    WHERE m.subscriber_id = e.subscriber_id AND m.meeting_uuid = e.meeting_uuid
                      AND e.scheduled_start_at = substr(m.started_at, 1, 17) || '00.000Z'
                      AND e.scheduled_end_at = substr(m.ended_at, 1, 17) || '00.000Z'));
UPDATE meetings AS m SET scheduled_start_at = NULL, scheduled_end_at = NULL
 WHERE scheduled_start_at IS NOT NULL
   AND EXISTS (SELECT 1 FROM enrichments e
                WHERE e.subscriber_id = m.subscriber_id AND e.meeting_uuid = m.meeting_uuid
                  AND e.scheduled_start_at IS NULL);

-- A run that ended is over unless it was started again: who joined since was late.
UPDATE meetings
   SET status = 'ended', ended_at = strftime('%Y-%m-%dT%H:%M:%fZ', (internal ->> 'last_end') / 1000.0, 'unixepoch')
 WHERE status = 'live' AND internal ->> 'last_end' IS NOT NULL
   AND coalesce(internal ->> 'last_start', -1) <= internal ->> 'last_end';

-- In a run that does not go on nobody's stay is open: it ended with the first end after it began, else when it began.
UPDATE attendance AS a
   SET closed_by = 'meeting_end', left_at = coalesce((
       SELECT min(strftime('%Y-%m-%dT%H:%M:%fZ', closing.value / 1000.0, 'unixepoch'))
         FROM meetings m, json_each(m.internal, '$.closings') AS closing
        WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid
          AND strftime('%Y-%m-%dT%H:%M:%fZ', closing.value / 1000.0, 'unixepoch') >= a.joined_at), a.joined_at)
 WHERE closed_by = 'open' AND joined_at IS NOT NULL
   AND EXISTS (SELECT 1 FROM meetings m
                WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid AND m.status <> 'live');
UPDATE attendance SET duration_s = round((julianday(left_at) - julianday(joined_at)) * 86400, 3)
 WHERE closed_by = 'meeting_end' AND left_at IS NOT NULL AND duration_s IS NULL;

-- Nobody leaves before they join, whatever the clocks say.
UPDATE attendance SET left_at = joined_at, duration_s = 0.0 WHERE left_at < joined_at;

UPDATE meetings AS m SET succeeded = 1
 WHERE status IN ('scheduled', 'live') AND meeting_id IS NOT NULL
   AND EXISTS (SELECT 1 FROM meetings o
                WHERE o.meeting_id = m.meeting_id AND o.meeting_id IS NOT NULL AND o.subscriber_id = m.subscriber_id
                  AND o.meeting_uuid <> m.meeting_uuid
                  AND o.started_at > CASE m.status WHEN 'live' THEN coalesce(m.started_at, m.first_event_at)
                                                   ELSE m.last_event_at END);

-- Of a run that is over nobody is there any more, whoever has not left.
DROP VIEW presence;
CREATE VIEW presence AS
SELECT a.stay_id, a.subscriber_id, a.meeting_uuid, coalesce(a.person, a.display_name, a.stay_id) AS person,
       a.display_name, a.joined_at, a.left_at, coalesce(a.joined_at, a.left_at) AS present_from,
       max(coalesce(a.joined_at, a.left_at), coalesce(a.left_at, (
           SELECT CASE WHEN NOT m.over AND m.last_event_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')
                       THEN max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), m.last_event_at) ELSE m.last_event_at END
             FROM meetings m WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid),
           a.joined_at)) AS present_until
  FROM attendance a;

-- People may enter before the time: late is who comes after the later of the plan and the start.
DROP VIEW late_joiners;
CREATE VIEW late_joiners AS
SELECT subscriber_id, meeting_uuid, meeting_id, started_at, person, display_name, joined_at,
       round((julianday(joined_at) - julianday(due_at)) * 1440, 2) AS minutes_late, scheduled_start_at
  FROM (SELECT *, max(started_at, coalesce(scheduled_start_at, started_at)) AS due_at
          FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id,
                       coalesce(m.started_at, m.first_event_at) AS started_at, m.scheduled_start_at, p.person,
                       min(p.display_name) AS display_name, min(p.joined_at) AS joined_at
                  FROM meetings m CROSS JOIN presence p USING (subscriber_id, meeting_uuid)
                 WHERE m.started_at IS NOT NULL AND p.joined_at IS NOT NULL
                 GROUP BY coalesce(m.started_at, m.first_event_at), m.meeting_uuid, m.subscriber_id, m.meeting_id,
                          m.scheduled_start_at, p.person))
 WHERE joined_at > strftime('%Y-%m-%dT%H:%M:%fZ', due_at, '+1 minute');

DROP VIEW no_end_seen;
CREATE VIEW no_end_seen AS
SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at,
       m.last_event_at, round((julianday('now') - julianday(m.last_event_at)) * 24, 2) AS silent_hours,
       (SELECT count(*) FROM attendance a
         WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid AND a.closed_by = 'open')
           AS open_stays
  FROM meetings m
 WHERE m.status = 'live' AND NOT m.over AND m.last_event_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day');

-- What was scheduled under a number and the runs that came of it, whatever UUIDs they have. A booking begins where one was
-- created, or with what comes after one that was cancelled or concluded: numbers are used again.
CREATE VIEW meeting_numbers AS
SELECT subscriber_id, meeting_id, meeting_cycle_sub_id, began_at,
       CASE WHEN live THEN 'live' WHEN concluded IS NOT NULL THEN 'concluded' WHEN runs > 0 THEN 'ended'
            WHEN cancelled IS NOT NULL THEN 'cancelled' ELSE 'scheduled' END AS status,
       all_over AS over, created AS created_at, modified AS modified_at, edits AS modifications, cancelled AS cancelled_at,
       concluded AS concluded_at, planned_from AS scheduled_start_at, planned_until AS scheduled_end_at,
       coalesce(own_subject, any_subject) AS subject, coalesce(own_host, any_host) AS host,
       coalesce(own_host_user_uuid, any_host_user_uuid) AS host_user_uuid, runs, started AS started_at,
       CASE WHEN NOT live THEN ended END AS ended_at, all_stays AS stays,
       (SELECT count(DISTINCT p.person) FROM json_each(uuids) AS uuid CROSS JOIN presence p
         WHERE p.subscriber_id = folded.subscriber_id AND p.meeting_uuid = uuid.value) AS participants,
       peak AS peak_participants, all_recordings AS recordings
  FROM (SELECT *, min(began) OVER folds AS began_at, max(status = 'live' AND NOT over) OVER folds AS live,
               min(over) OVER folds AS all_over, sum(held) OVER folds AS runs,
               min(scheduled_start_at) OVER folds AS planned_from, min(scheduled_end_at) OVER folds AS planned_until,
               max(subject) OVER folds AS own_subject, max(host) OVER folds AS own_host,
               max(host_user_uuid) OVER folds AS own_host_user_uuid, min(started_at) OVER folds AS started,
               max(ended_at) OVER folds AS ended, sum(stays) OVER folds AS all_stays,
               max(peak_participants) OVER folds AS peak, sum(recordings) OVER folds AS all_recordings,
               json_group_array(meeting_uuid) OVER folds AS uuids, row_number() OVER folds AS number
          FROM (SELECT *, min(created_at) OVER whole AS created, max(modified_at) OVER whole AS modified,
                       sum(modifications) OVER whole AS edits, max(cancelled_at) OVER whole AS cancelled,
                       max(concluded_at) OVER whole AS concluded, max(subject) OVER whole AS any_subject,
                       max(host) OVER whole AS any_host, max(host_user_uuid) OVER whole AS any_host_user_uuid,
                       max(meeting_cycle_sub_id IS NOT NULL) OVER whole AS series
                  FROM (SELECT *, sum(begins) OVER (PARTITION BY meeting_id, subscriber_id ORDER BY began, meeting_uuid
                                                    ROWS UNBOUNDED PRECEDING) AS booking
                          FROM (SELECT *, created_at IS NOT NULL
                                          OR coalesce(lag(coalesce(concluded_at, cancelled_at)) OVER places <= began, 0)
                                              AS begins
                                  FROM (SELECT *, coalesce(created_at, started_at, first_event_at) AS began,
                                               started_at IS NOT NULL OR stays > 0 AS held
                                          FROM meetings m WHERE meeting_id IS NOT NULL)
                                WINDOW places AS (PARTITION BY meeting_id, subscriber_id ORDER BY began, meeting_uuid)))
                WINDOW whole AS (PARTITION BY meeting_id, subscriber_id, booking))
         WHERE held OR meeting_cycle_sub_id IS NOT NULL OR NOT series
        WINDOW folds AS (PARTITION BY meeting_id, subscriber_id, booking, meeting_cycle_sub_id)) AS folded
 WHERE number = 1;
