-- name: select_statement_timeout
-- The statement timeout of this session, in seconds. 0: no timeout.
SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::float8
