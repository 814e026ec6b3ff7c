-- name: existing_table_index
-- Creates the index for the view of existing_table.sql: it gives one doctor's cases in insertion order without a sort.
-- Run it as the table's owner. It does not block writers, so it must run outside a transaction, as in psql -f.
-- An interrupted run leaves an invalid index, which `medmitra-cases check` reports. Drop that index first.

CREATE INDEX CONCURRENTLY IF NOT EXISTS cases_doctor_id_id_idx ON public.cases (doctor_id, id);
