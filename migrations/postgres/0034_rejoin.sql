-- Somebody who joined again without a left had left by then: closed_by is rejoin, and when exactly is not known. An expression of a
-- generated column cannot be changed under the views that read it: so a trigger keeps it, which has to do where it is not as before.
ALTER TABLE attendance ALTER COLUMN estimated DROP EXPRESSION;
ALTER TABLE attendance ALTER COLUMN estimated SET DEFAULT false;
CREATE FUNCTION convoke_estimated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.estimated := NOT NEW.estimated;
    RETURN NEW;
END $$;
CREATE TRIGGER attendance_estimated BEFORE INSERT OR UPDATE ON attendance FOR EACH ROW
    WHEN (NEW.estimated IS DISTINCT FROM (NEW.closed_by IN ('open', 'rejoin')
          OR (NEW.closed_by = 'meeting_end' AND NEW.left_at IS NOT DISTINCT FROM NEW.joined_at)))
    EXECUTE FUNCTION convoke_estimated();
COMMENT ON COLUMN attendance.estimated IS 'Whether nobody told when it ended: it is open, of somebody who came after the end of the run, or of somebody who joined again. An open one counts in figures until the last event of its run.';
COMMENT ON COLUMN attendance.closed_by IS 'left (somebody left), meeting_end (the run ended before a left came, or was over already), rejoin (the same participant joined again before a left came: they had left by then) or open; while a run goes on after its end, who did not leave is open again.';

INSERT INTO unsettled
SELECT DISTINCT subscriber_id, meeting_uuid
  FROM (SELECT subscriber_id, meeting_uuid FROM attendance
         WHERE participant_id IS NOT NULL
         GROUP BY subscriber_id, meeting_uuid, participant_id
        HAVING count(*) > 1 AND count(*) FILTER (WHERE closed_by <> 'left') > 0) AS several
    ON CONFLICT DO NOTHING;
