-- name: select_statement_timeout
-- How long the server lets this session's statements run, in seconds; 0 is for ever.
SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::float8
