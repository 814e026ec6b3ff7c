-- name: describe_connections
-- How many connections this role may have (by its CONNECTION LIMIT, by that of the database, and beside those that other
-- roles have now), and its limit for statements in seconds; NULL is no limit.
SELECT
    nullif(role.rolconnlimit, -1) AS role_limit,
    nullif(database.datconnlimit, -1) AS database_limit,
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true)::integer, 0)
        - (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usename <> session_user)::integer AS free,
    nullif(extract(epoch FROM current_setting('statement_timeout')::interval)::float8, 0) AS statement_seconds
FROM pg_roles AS role
JOIN pg_database AS database ON database.datname = current_database()
WHERE role.rolname = session_user
