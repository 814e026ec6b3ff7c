-- name: describe_session
-- Who is connected to what, and the role's settings that matter.
SELECT
    current_setting('server_version') AS server_version,
    current_setting('server_version_num')::integer AS server_version_number,
    current_database() AS database_name,
    current_user AS role_name,
    current_setting('statement_timeout') AS statement_timeout,
    current_setting('random_page_cost')::float AS random_page_cost
