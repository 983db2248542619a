-- What came of calling somebody into a meeting, and why they left it, as running meetings tell it (live.enabled).
CREATE TABLE call_results (
    event_id      TEXT NOT NULL,
    -- Which of the event's it is.
    item          INTEGER NOT NULL,
    subscriber_id TEXT NOT NULL,
    meeting_uuid  TEXT NOT NULL,
    meeting_id    TEXT,
    told_at       TEXT NOT NULL,
    call_number   TEXT NOT NULL,
    -- As the platform has it.
    code          TEXT NOT NULL,
    -- reached, not_reached, left or unknown
    outcome       TEXT NOT NULL,
    reason        TEXT,
    PRIMARY KEY (event_id, item)
) WITHOUT ROWID, STRICT;
CREATE INDEX call_results_run ON call_results (meeting_uuid, call_number);

-- Who was called and not reached, and why; with whether they came all the same.
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
