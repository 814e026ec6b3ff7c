-- name: describe_connections
-- The numbers of connections that this role may have: by its CONNECTION LIMIT, by that of the database (NULL is no
-- limit), and beside those that other roles have now.
SELECT
    nullif(role.rolconnlimit, -1) AS role_limit,
    nullif(database.datconnlimit, -1) AS database_limit,
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true)::integer, 0)
        - (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usename <> session_user)::integer AS free
FROM pg_roles AS role
JOIN pg_database AS database ON database.datname = current_database()
WHERE role.rolname = session_user
