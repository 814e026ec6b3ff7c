-- name: insert_published_cases
-- Inserts the cases of the published example (cases: a JSON array). Returns one row for each inserted case.
INSERT INTO medmitra.cases
    (case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at)
SELECT
    case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at
FROM json_populate_recordset(NULL::medmitra.cases, %(cases)s) WITH ORDINALITY
ORDER BY ordinality
ON CONFLICT (case_id) DO NOTHING
RETURNING case_id
