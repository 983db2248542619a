-- Somebody who joined again without a left had left by then: closed_by is rejoin, and when exactly is not known. The column is virtual, so
-- that its expression is all that changes.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
   SET sql = replace(sql, 'closed_by = ''open'' OR', 'closed_by IN (''open'', ''rejoin'') OR')
 WHERE type = 'table' AND name = 'attendance';
PRAGMA writable_schema = RESET;

-- Other connections see that the schema changed.
CREATE VIEW rejoined AS SELECT 1;
DROP VIEW rejoined;

INSERT INTO unsettled
SELECT DISTINCT subscriber_id, meeting_uuid
  FROM (SELECT subscriber_id, meeting_uuid FROM attendance
         WHERE participant_id IS NOT NULL
         GROUP BY subscriber_id, meeting_uuid, participant_id
        HAVING count(*) > 1 AND count(*) FILTER (WHERE closed_by <> 'left') > 0)
 WHERE true
    ON CONFLICT DO NOTHING;
