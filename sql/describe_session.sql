-- name: describe_session
-- The server, database and role of this session, two of its settings (statement_seconds: NULL is no limit), whether
-- lower() converts more than A to Z, and whether SET LOCAL reaches the shards of Citus (NULL without Citus).
SELECT
    current_setting('server_version') AS server_version,
    current_setting('server_version_num')::integer AS server_version_number,
    current_database() AS database_name,
    current_user AS role_name,
    current_setting('statement_timeout') AS statement_timeout,
    nullif(extract(epoch FROM current_setting('statement_timeout')::interval)::float8, 0) AS statement_seconds,
    current_setting('random_page_cost')::float AS random_page_cost,
    lower('É') = 'é' AS knows_letters,
    current_setting('citus.propagate_set_commands', true) = 'local' AS sets_reach_shards
