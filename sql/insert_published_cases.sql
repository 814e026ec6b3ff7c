-- name: insert_published_cases
-- Inserts the cases of the published example (cases: a JSON array). Returns one row for each inserted case.
INSERT INTO medmitra.cases
    (case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at)
SELECT
    case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at
FROM json_populate_recordset(NULL::medmitra.cases, %(cases)s) WITH ORDINALITY
ORDER BY ordinality
-- Without a name of columns: (case_id), or (user_id, case_id) if the table is partitioned.
ON CONFLICT DO NOTHING
RETURNING case_id
