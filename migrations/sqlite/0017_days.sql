-- What a day is: those of UTC, until the service makes them those of reports.time_zone.
CREATE TABLE days (
    day       TEXT NOT NULL PRIMARY KEY,
    begins_at TEXT NOT NULL,
    ends_at   TEXT NOT NULL,
    time_zone TEXT NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX days_begin ON days (begins_at);

INSERT INTO days
WITH RECURSIVE utc (day) AS (
    SELECT '2015-01-01' UNION ALL SELECT date(day, '+1 day') FROM utc WHERE day < '2028-12-31')
SELECT day, day || 'T00:00:00.000Z', date(day, '+1 day') || 'T00:00:00.000Z', 'UTC' FROM utc;
