-- name: describe_session
-- Who is connected to what, and whether the role holds more than the service needs.
SELECT
    current_setting('server_version') AS server_version,
    current_setting('server_version_num')::integer AS server_version_number,
    current_database() AS database_name,
    current_user AS role_name,
    current_setting('statement_timeout') AS statement_timeout,
    EXISTS (
        SELECT
        FROM pg_class AS relation
        JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
        WHERE namespace.nspname = 'medmitra'
            AND relation.relname = 'cases'
            AND has_table_privilege(relation.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
    ) AS may_write
