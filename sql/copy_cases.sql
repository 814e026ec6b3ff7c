-- name: copy_cases
-- Inserts cases in COPY's text format. The database generates id and case_id.
COPY medmitra.cases
    (user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at)
FROM STDIN
