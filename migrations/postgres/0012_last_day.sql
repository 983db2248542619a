-- Numbers are the same in both databases; this one is SQLite's, whose dates end with the year 9999.
SELECT 1;
