-- name: existing_table
-- Creates the view medmitra.cases on the product's table public.cases (doctor_id uuid, case_id text, …).
-- Run it instead of schema.sql if the database already has that table. It does not change public.cases. Run it as the
-- owner of public.cases, who must also have the right to create a schema. A second run changes nothing.
--
-- The view reads with the rights of its owner. Therefore the service's role needs no rights on public.cases, and row
-- level security of public.cases hides no rows (a view with another owner would show none). The view itself shows only
-- the cases of one doctor: the doctor that set_user_id.sql sets.
-- Fast reads need the index of existing_table_index.sql.
-- To drop a column that the view reads, or to change its type, run DROP VIEW medmitra.cases first. Then run this file
-- and roles.sql again. Restart the service after a change of the view: its definition is part of the ETags, and each
-- connection reads it once.
-- If you change the view: ETags are made of xmin only while it shows the rows of one ordinary table and calls nothing
-- but immutable functions of Postgres. medmitra-cases check says what they are made of.
-- An earlier version of this view did not cast its columns. If a column of public.cases is not text, Postgres refuses to
-- replace that view ("cannot change data type of view column"): run DROP VIEW medmitra.cases first.

BEGIN;

-- The lock serializes concurrent runs, which would otherwise create the same names.
DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtextextended('medmitra schema.sql', 0)); END $$;
-- Give up if a long transaction holds a lock. Otherwise all readers would wait behind this one.
SET LOCAL lock_timeout = '3s';

CREATE SCHEMA IF NOT EXISTS medmitra;

CREATE OR REPLACE VIEW medmitra.cases AS
SELECT
    id,
    -- The casts have no effect on text. The columns may also be enumerations, for example.
    case_id::text AS case_id,
    doctor_id AS user_id,
    patient_name::text AS patient_name,
    patient_age,
    patient_gender::text AS patient_gender,
    case_summary::text AS case_summary,
    status::text AS status,
    -- NULL for infinity, years BC and years from 10000: public.cases may contain them, but ISO 8601 cannot write them.
    CASE WHEN created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
        THEN created_at END AS created_at,
    CASE WHEN updated_at >= '0001-01-01 00:00:00+00' AND updated_at < '10000-01-01 00:00:00+00'
        THEN updated_at END AS updated_at,
    -- The version of the row, for ETags.
    xmin
FROM public.cases
WHERE doctor_id = nullif(current_setting('medmitra.user_id', true), '')::uuid;

COMMIT;
