-- Numbers are the same in both databases; this one is SQLite's, whose database is a file.
SELECT 1;
