-- name: row_version
-- What changes with each change of a row, and does not come back: a part of the statements that need it. id says which
-- row, xmin the transaction that wrote this version of it. Transactions that were lost leave their numbers to others:
-- on a standby that takes over, after a restart, and (if commits are asynchronous) after the crash of a session, for
-- which Postgres drops its statistics.
hash_record_extended(ROW(xmin, pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time()), id)
