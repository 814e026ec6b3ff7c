-- name: limit_statements
-- Limits the time of each later statement of the transaction, for sessions whose role has no limit or a higher one.
SET LOCAL statement_timeout = '5s'
