-- name: existing_table_index
-- The index that lets the view of existing_table.sql read one doctor's cases in insertion order without a
-- sort. Built without blocking writers, so it must run outside a transaction: psql -f does.

CREATE INDEX CONCURRENTLY IF NOT EXISTS cases_doctor_id_id_idx ON public.cases (doctor_id, id);
