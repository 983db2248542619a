-- What a day is: those of UTC, until the service makes them those of reports.time_zone.
CREATE TABLE days (
    day       date        NOT NULL PRIMARY KEY,
    begins_at timestamptz NOT NULL,
    ends_at   timestamptz NOT NULL,
    time_zone text        NOT NULL
);
CREATE INDEX days_begin ON days (begins_at);

INSERT INTO days
SELECT day, day AT TIME ZONE 'UTC', (day + interval '1 day') AT TIME ZONE 'UTC', 'UTC'
  FROM generate_series(timestamp '2015-01-01', timestamp '2028-12-31', interval '1 day') AS day;

COMMENT ON TABLE days IS 'What a day is: those of the setting reports.time_zone, from 2015 until well ahead. The views'' days are these. Kept by the service.';
COMMENT ON COLUMN days.day IS 'The day.';
COMMENT ON COLUMN days.begins_at IS 'Its first moment.';
COMMENT ON COLUMN days.ends_at IS 'The first moment of the next one: a day has 23 to 25 hours.';
COMMENT ON COLUMN days.time_zone IS 'Whose days these are: the same in all rows.';
