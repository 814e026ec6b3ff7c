-- name: existing_table_index
-- The index that lets the view of existing_table.sql read one doctor's cases in insertion order without a
-- sort. Run by the table's owner. Built without blocking writers, so it must run outside a transaction, as psql -f
-- does. If it was interrupted, an invalid index is left behind, which `medmitra-cases check` finds: drop it first.

CREATE INDEX CONCURRENTLY IF NOT EXISTS cases_doctor_id_id_idx ON public.cases (doctor_id, id);
