-- name: existing_table
-- For a database that already has the product's own table public.cases (doctor_id uuid, case_id text, …):
-- a view in a schema of its own that gives that table the shape the service reads. Instead of schema.sql;
-- public.cases itself is not changed. Run by its owner, who must also be allowed to make a schema; running it
-- again changes nothing.
--
-- The service reads through the view with the rights of the view's owner, so its own role needs none on
-- public.cases, and row level security there does not hide rows (another owner of the view would see none).
-- Instead the view itself shows the cases of one doctor only: of the one that set_user_id.sql names.
-- Fast reads need the index in existing_table_index.sql. Columns that the view reads can be dropped or change
-- their type only while there is no view: DROP VIEW medmitra.cases, then run this and roles.sql again. If you change what
-- the view shows, restart the service afterwards: the definition counts in its ETags, and each connection reads it once.
-- Let it show each row of one ordinary table once: of foreign tables, and of others that are joined, xmin knows nothing.

BEGIN;

-- Two of these at once would race for the same names.
DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtextextended('medmitra schema.sql', 0)); END $$;
-- Give up rather than queue behind a long transaction, with every reader queueing behind us.
SET LOCAL lock_timeout = '3s';

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
    -- Nothing bars infinity, BC or year 10000 from that table, but ISO 8601 cannot write them: NULL, then.
    CASE WHEN created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
        THEN created_at END AS created_at,
    CASE WHEN updated_at >= '0001-01-01 00:00:00+00' AND updated_at < '10000-01-01 00:00:00+00'
        THEN updated_at END AS updated_at,
    -- The version of the row, of which ETags are made. Where there is none: MEDMITRA_ETAG_SOURCE=body.
    xmin
FROM public.cases
WHERE doctor_id = nullif(current_setting('medmitra.user_id', true), '')::uuid;

COMMIT;
