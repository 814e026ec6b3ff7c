-- name: existing_table
-- For a database that already has the product's own table public.cases (doctor_id uuid, case_id text, …):
-- a view in a schema of its own that gives that table the shape the service reads. Instead of schema.sql;
-- public.cases itself is not changed. Run by a role that may read public.cases; running it again changes nothing.
--
-- The service reads through the view with the rights of the view's owner, so its own role needs none on
-- public.cases. Fast reads need the index in existing_table_index.sql.

BEGIN;

SELECT pg_advisory_xact_lock(hashtextextended('medmitra schema.sql', 0));

CREATE SCHEMA IF NOT EXISTS medmitra;

CREATE OR REPLACE VIEW medmitra.cases AS
SELECT
    id,
    case_id,
    doctor_id AS user_id,
    patient_name,
    patient_age,
    patient_gender,
    case_summary,
    status,
    created_at,
    updated_at
FROM public.cases;

COMMIT;
