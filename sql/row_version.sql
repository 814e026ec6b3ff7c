-- name: row_version
-- An expression that changes with each change of a row and never repeats. The other statements include it.
-- id identifies the row; xmin is the transaction that wrote this version of it. Postgres can reuse the numbers of lost
-- transactions: on a standby that takes over, after a restart, and (with asynchronous commits) after the crash of a
-- session, when Postgres resets its statistics. So the times of the server's start and of that reset are included.
hash_record_extended(ROW(xmin, pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time()), id)
