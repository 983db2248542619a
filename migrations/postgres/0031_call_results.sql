-- What came of calling somebody into a meeting, and why they left it, as running meetings tell it (live.enabled).
CREATE TABLE call_results (
    event_id      uuid NOT NULL,
    item          bigint NOT NULL,
    subscriber_id text NOT NULL,
    meeting_uuid  text NOT NULL,
    meeting_id    text,
    told_at       timestamptz NOT NULL,
    call_number   text NOT NULL,
    code          text NOT NULL,
    outcome       text NOT NULL,
    reason        text,
    PRIMARY KEY (event_id, item)
);
CREATE INDEX call_results_run ON call_results (meeting_uuid, call_number);
COMMENT ON TABLE call_results IS 'What came of calling somebody into a meeting, and why they left it, as running meetings tell it (live.enabled).';
COMMENT ON COLUMN call_results.event_id IS 'The event that tells it.';
COMMENT ON COLUMN call_results.item IS 'Which of the event''s it is.';
COMMENT ON COLUMN call_results.subscriber_id IS 'The subscriber: appID.';
COMMENT ON COLUMN call_results.meeting_uuid IS 'The run.';
COMMENT ON COLUMN call_results.meeting_id IS 'The number of the meeting.';
COMMENT ON COLUMN call_results.told_at IS 'When it was told.';
COMMENT ON COLUMN call_results.call_number IS 'The number that was called.';
COMMENT ON COLUMN call_results.code IS 'As the platform has it.';
COMMENT ON COLUMN call_results.outcome IS 'reached, not_reached, left or unknown.';
COMMENT ON COLUMN call_results.reason IS 'Why; null if they were reached, or if the code is not known.';

CREATE VIEW failed_invitations AS
SELECT c.subscriber_id, c.meeting_uuid, c.meeting_id, c.told_at, c.call_number,
       coalesce((SELECT min(i.display_name) FROM invitations i
                  WHERE i.subscriber_id = c.subscriber_id AND i.meeting_uuid = c.meeting_uuid AND i.call_number = c.call_number),
                (SELECT min(a.display_name) FROM attendance a
                  WHERE a.subscriber_id = c.subscriber_id AND a.meeting_uuid = c.meeting_uuid AND a.call_number = c.call_number))
           AS display_name,
       c.reason, c.code,
       EXISTS (SELECT 1 FROM attendance a
                WHERE a.subscriber_id = c.subscriber_id AND a.meeting_uuid = c.meeting_uuid AND a.call_number = c.call_number
                  AND a.joined_at > c.told_at) AS came_later
  FROM call_results c
 WHERE c.outcome = 'not_reached';
COMMENT ON VIEW failed_invitations IS 'Who was called into a meeting and not reached, and why.';
COMMENT ON COLUMN failed_invitations.subscriber_id IS 'The subscriber: appID.';
COMMENT ON COLUMN failed_invitations.meeting_uuid IS 'The run.';
COMMENT ON COLUMN failed_invitations.meeting_id IS 'The number of the meeting.';
COMMENT ON COLUMN failed_invitations.told_at IS 'When it was told.';
COMMENT ON COLUMN failed_invitations.call_number IS 'The number that was called.';
COMMENT ON COLUMN failed_invitations.display_name IS 'The name, if an invitation or a stay of the run has it.';
COMMENT ON COLUMN failed_invitations.reason IS 'no_answer, offline, busy, refused …; null if the code is not known.';
COMMENT ON COLUMN failed_invitations.code IS 'As the platform has it.';
COMMENT ON COLUMN failed_invitations.came_later IS 'Whether somebody with that number joined after it.';
