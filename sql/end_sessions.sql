-- name: end_sessions
-- Ends the service's sessions in one database, for tests. Each call waits for the end, at most 1 s for each session.
-- %(database)s is the name of the database. Needs a superuser.
SELECT pg_terminate_backend(pid, 1000)
FROM pg_stat_activity
WHERE datname = %(database)s AND usename = 'medmitra_cases'
