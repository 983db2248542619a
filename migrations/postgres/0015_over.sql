-- What is over, the plan of a meeting apart from what came of it, and who is its host.
ALTER TABLE enrichments ADD COLUMN host_user_uuid text, ADD COLUMN conference_type text, ADD COLUMN webinar boolean;
ALTER TABLE meetings
    ADD COLUMN host_user_uuid text, ADD COLUMN conference_type text, ADD COLUMN webinar boolean,
    ADD COLUMN succeeded boolean NOT NULL DEFAULT false,
    ADD COLUMN over boolean NOT NULL GENERATED ALWAYS AS (status NOT IN ('scheduled', 'live') OR succeeded) STORED;

COMMENT ON COLUMN meetings.status IS 'scheduled, cancelled, live, ended (its end was the last of it: it was not started again) or concluded (nobody can enter it any more).';
COMMENT ON COLUMN meetings.scheduled_start_at IS 'For when it was planned. Fetched from the platform, if enriched; null if the platform was asked after it was over.';
COMMENT ON COLUMN meetings.scheduled_end_at IS 'Until when it was planned; as scheduled_start_at.';
COMMENT ON COLUMN meetings.host IS 'Who scheduled it, by name. Fetched from the platform, if enriched.';
COMMENT ON COLUMN meetings.host_user_uuid IS 'Who scheduled it, as attendance.user_uuid has it. Fetched from the platform, if enriched.';
COMMENT ON COLUMN meetings.conference_type IS 'FUTURE (scheduled), IMMEDIATELY or CYCLE (of a series), as the platform says, if enriched.';
COMMENT ON COLUMN meetings.webinar IS 'Whether it is a webinar, as the platform says, if enriched.';
COMMENT ON COLUMN meetings.succeeded IS 'Whether another run of its number has started since, as far as that matters. What counts is over.';
COMMENT ON COLUMN meetings.over IS 'Whether nothing more is to come of this run, by all that is known: it was cancelled, has ended or was concluded, or another run of its number has started since.';

CREATE OR REPLACE FUNCTION convoke_enrich_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meetings m
       SET subject = e.subject, scheduled_start_at = e.scheduled_start_at, scheduled_end_at = e.scheduled_end_at,
           host = e.host, corp_id = e.corp_id, host_user_uuid = e.host_user_uuid, conference_type = e.conference_type,
           webinar = e.webinar
      FROM made JOIN enrichments e ON e.subscriber_id = made.subscriber_id AND e.meeting_uuid = made.meeting_uuid
     WHERE m.subscriber_id = made.subscriber_id AND m.meeting_uuid = made.meeting_uuid;
    RETURN NULL;
END $$;

-- Of a run that was over the platform tells when it was held, in whole minutes, and that is no plan.
UPDATE enrichments e SET scheduled_start_at = NULL, scheduled_end_at = NULL
 WHERE scheduled_start_at IS NOT NULL
   AND (status IN ('ended', 'concluded')
        OR EXISTS (SELECT 1 FROM meetings m
                    WHERE m.subscriber_id = e.subscriber_id AND m.meeting_uuid = e.meeting_uuid
                      AND e.scheduled_start_at = date_trunc('minute', m.started_at)
                      AND e.scheduled_end_at = date_trunc('minute', m.ended_at)));
UPDATE meetings m SET scheduled_start_at = NULL, scheduled_end_at = NULL
 WHERE scheduled_start_at IS NOT NULL
   AND EXISTS (SELECT 1 FROM enrichments e
                WHERE e.subscriber_id = m.subscriber_id AND e.meeting_uuid = m.meeting_uuid
                  AND e.scheduled_start_at IS NULL);

-- A run that ended is over unless it was started again: who joined since was late.
UPDATE meetings
   SET status = 'ended',
       ended_at = 'epoch'::timestamptz + (internal::json ->> 'last_end')::bigint * interval '1 millisecond'
 WHERE status = 'live' AND internal::json ->> 'last_end' IS NOT NULL
   AND coalesce((internal::json ->> 'last_start')::bigint, -1) <= (internal::json ->> 'last_end')::bigint;

-- In a run that does not go on nobody's stay is open: it ended with the first end after it began, else when it began.
UPDATE attendance a
   SET (left_at, duration_s, closed_by) = (
       SELECT ended.at, extract(epoch FROM ended.at - a.joined_at)::float8, 'meeting_end'
         FROM (SELECT coalesce((SELECT min('epoch'::timestamptz + closing.ms::bigint * interval '1 millisecond')
                                  FROM json_array_elements_text(m.internal::json -> 'closings') AS closing (ms)
                                 WHERE 'epoch'::timestamptz + closing.ms::bigint * interval '1 millisecond' >= a.joined_at),
                               a.joined_at) AS at
                 FROM meetings m WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid) AS ended)
 WHERE closed_by = 'open' AND joined_at IS NOT NULL
   AND EXISTS (SELECT 1 FROM meetings m
                WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid AND m.status <> 'live');

-- Nobody leaves before they join, whatever the clocks say.
UPDATE attendance SET left_at = joined_at, duration_s = 0 WHERE left_at < joined_at;
COMMENT ON COLUMN attendance.left_at IS 'When it ended; null while it is open. Never before joined_at: a left that says so counts as at joining.';
COMMENT ON COLUMN attendance.closed_by IS 'left (somebody left), meeting_end (the run ended before a left came, or was over already) or open; while a run goes on after its end, who did not leave is open again.';

UPDATE meetings m SET succeeded = true
 WHERE status IN ('scheduled', 'live') AND meeting_id IS NOT NULL
   AND EXISTS (SELECT 1 FROM meetings o
                WHERE o.meeting_id = m.meeting_id AND o.meeting_id IS NOT NULL AND o.subscriber_id = m.subscriber_id
                  AND o.meeting_uuid <> m.meeting_uuid
                  AND o.started_at > CASE m.status WHEN 'live' THEN coalesce(m.started_at, m.first_event_at)
                                                   ELSE m.last_event_at END);

-- Of a run that is over nobody is there any more, whoever has not left.
CREATE OR REPLACE VIEW presence AS
SELECT a.stay_id, a.subscriber_id, a.meeting_uuid, coalesce(a.person, a.display_name, a.stay_id::text) AS person,
       a.display_name, a.joined_at, a.left_at, coalesce(a.joined_at, a.left_at) AS present_from,
       greatest(coalesce(a.joined_at, a.left_at), coalesce(a.left_at, (
           SELECT CASE WHEN NOT m.over AND m.last_event_at > now() - interval '1 day'
                       THEN greatest(date_trunc('milliseconds', now()), m.last_event_at) ELSE m.last_event_at END
             FROM meetings m WHERE m.subscriber_id = a.subscriber_id AND m.meeting_uuid = a.meeting_uuid),
           a.joined_at)) AS present_until
  FROM attendance a;
COMMENT ON COLUMN presence.present_until IS 'left_at; of an open stay, now while the run is not over and something was heard of it in the last 24 hours, else the run''s last event.';

-- People may enter before the time: late is who comes after the later of the plan and the start.
CREATE OR REPLACE VIEW late_joiners AS
SELECT subscriber_id, meeting_uuid, meeting_id, started_at, person, display_name, joined_at,
       round(extract(epoch FROM joined_at - greatest(started_at, scheduled_start_at)) / 60, 2)::float8 AS minutes_late,
       scheduled_start_at
  FROM (SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS started_at,
               m.scheduled_start_at, p.person, min(p.display_name) AS display_name, min(p.joined_at) AS joined_at
          FROM meetings m JOIN presence p USING (subscriber_id, meeting_uuid)
         WHERE m.started_at IS NOT NULL AND p.joined_at IS NOT NULL
         GROUP BY coalesce(m.started_at, m.first_event_at), m.meeting_uuid, m.subscriber_id, m.meeting_id,
                  m.scheduled_start_at, p.person) AS first
 WHERE joined_at > greatest(started_at, scheduled_start_at) + interval '1 minute';
COMMENT ON VIEW late_joiners IS 'Who first joined more than a minute after the run had started, or was to start, whichever is later.';
COMMENT ON COLUMN late_joiners.minutes_late IS 'Minutes from the later of started_at and scheduled_start_at to joined_at.';
COMMENT ON COLUMN late_joiners.scheduled_start_at IS 'For when it was planned; null if that is not known.';

CREATE OR REPLACE VIEW no_end_seen AS
SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, coalesce(m.started_at, m.first_event_at) AS began_at,
       m.last_event_at, round(extract(epoch FROM now() - m.last_event_at) / 3600, 2)::float8 AS silent_hours,
       (SELECT count(*) FROM attendance a
         WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid AND a.closed_by = 'open')
           AS open_stays
  FROM meetings m
 WHERE m.status = 'live' AND NOT m.over AND m.last_event_at < now() - interval '1 day';

-- What was scheduled under a number and the runs that came of it, whatever UUIDs they have. A booking begins where one was
-- created, or with what comes after one that was cancelled or concluded: numbers are used again.
CREATE VIEW meeting_numbers AS
SELECT subscriber_id, meeting_id, meeting_cycle_sub_id, min(began) AS began_at,
       CASE WHEN bool_or(status = 'live' AND NOT over) THEN 'live'
            WHEN max(concluded) IS NOT NULL THEN 'concluded'
            WHEN bool_or(held) THEN 'ended'
            WHEN max(cancelled) IS NOT NULL THEN 'cancelled' ELSE 'scheduled' END AS status,
       bool_and(over) AS over, min(created) AS created_at, max(modified) AS modified_at,
       max(edits)::bigint AS modifications, max(cancelled) AS cancelled_at, max(concluded) AS concluded_at,
       min(scheduled_start_at) AS scheduled_start_at, min(scheduled_end_at) AS scheduled_end_at,
       coalesce(max(subject), max(any_subject)) AS subject, coalesce(max(host), max(any_host)) AS host,
       coalesce(max(host_user_uuid), max(any_host_user_uuid)) AS host_user_uuid,
       count(*) FILTER (WHERE held) AS runs, min(started_at) AS started_at,
       CASE WHEN NOT bool_or(status = 'live' AND NOT over) THEN max(ended_at) END AS ended_at,
       sum(stays)::bigint AS stays,
       (SELECT count(DISTINCT p.person) FROM presence p
         WHERE p.subscriber_id = bookings.subscriber_id
           AND p.meeting_uuid = ANY (array_agg(bookings.meeting_uuid))) AS participants,
       max(peak_participants) AS peak_participants, sum(recordings)::bigint AS recordings
  FROM (SELECT *, min(created_at) OVER whole AS created, max(modified_at) OVER whole AS modified,
               sum(modifications) OVER whole AS edits, max(cancelled_at) OVER whole AS cancelled,
               max(concluded_at) OVER whole AS concluded, max(subject) OVER whole AS any_subject,
               max(host) OVER whole AS any_host, max(host_user_uuid) OVER whole AS any_host_user_uuid,
               bool_or(meeting_cycle_sub_id IS NOT NULL) OVER whole AS series
          FROM (SELECT *, sum(begins) OVER (PARTITION BY meeting_id, subscriber_id ORDER BY began, meeting_uuid
                                            ROWS UNBOUNDED PRECEDING) AS booking
                  FROM (SELECT *, (created_at IS NOT NULL
                                   OR coalesce(lag(coalesce(concluded_at, cancelled_at)) OVER places <= began, false))::int
                                      AS begins
                          FROM (SELECT *, coalesce(created_at, started_at, first_event_at) AS began,
                                       started_at IS NOT NULL OR stays > 0 AS held
                                  FROM meetings WHERE meeting_id IS NOT NULL) AS runs
                        WINDOW places AS (PARTITION BY meeting_id, subscriber_id ORDER BY began, meeting_uuid)) AS runs
               ) AS runs
        WINDOW whole AS (PARTITION BY meeting_id, subscriber_id, booking)) AS bookings
 WHERE held OR meeting_cycle_sub_id IS NOT NULL OR NOT series
 GROUP BY meeting_id, subscriber_id, booking, meeting_cycle_sub_id;

COMMENT ON VIEW meeting_numbers IS 'Bookings of a number, and of a series its occurrences: what was scheduled, and the runs that came of it, folded together.';
COMMENT ON COLUMN meeting_numbers.subscriber_id IS 'The push configuration (appID) that told of it.';
COMMENT ON COLUMN meeting_numbers.meeting_id IS 'The meeting''s number, which later bookings may have again.';
COMMENT ON COLUMN meeting_numbers.meeting_cycle_sub_id IS 'The occurrence of a series; null for single ones, for a series of which none was held, and for runs of it that did not tell theirs.';
COMMENT ON COLUMN meeting_numbers.began_at IS 'When it was scheduled; else when its first run started.';
COMMENT ON COLUMN meeting_numbers.status IS 'live while one of its runs is; else concluded, ended (it was held), cancelled or scheduled.';
COMMENT ON COLUMN meeting_numbers.over IS 'Whether all of its runs are over.';
COMMENT ON COLUMN meeting_numbers.created_at IS 'When it was scheduled; null if no such event came.';
COMMENT ON COLUMN meeting_numbers.modified_at IS 'When it was edited last.';
COMMENT ON COLUMN meeting_numbers.modifications IS 'How often it was edited.';
COMMENT ON COLUMN meeting_numbers.cancelled_at IS 'When it was cancelled.';
COMMENT ON COLUMN meeting_numbers.concluded_at IS 'When it was closed.';
COMMENT ON COLUMN meeting_numbers.scheduled_start_at IS 'For when it was planned, if enriched.';
COMMENT ON COLUMN meeting_numbers.scheduled_end_at IS 'Until when it was planned, if enriched.';
COMMENT ON COLUMN meeting_numbers.subject IS 'What it is about, if enriched.';
COMMENT ON COLUMN meeting_numbers.host IS 'Who scheduled it, by name, if enriched.';
COMMENT ON COLUMN meeting_numbers.host_user_uuid IS 'Who scheduled it, as attendance.user_uuid has it, if enriched.';
COMMENT ON COLUMN meeting_numbers.runs IS 'How often it was held: entered again after its end, it has another run.';
COMMENT ON COLUMN meeting_numbers.started_at IS 'When the first of its runs started.';
COMMENT ON COLUMN meeting_numbers.ended_at IS 'When the last of its runs ended; null while one is live.';
COMMENT ON COLUMN meeting_numbers.stays IS 'How many stays its runs had.';
COMMENT ON COLUMN meeting_numbers.participants IS 'How many distinct people came to them.';
COMMENT ON COLUMN meeting_numbers.peak_participants IS 'The most distinct people at one moment in one of its runs.';
COMMENT ON COLUMN meeting_numbers.recordings IS 'How many recordings were finished.';
