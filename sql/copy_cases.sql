-- name: copy_cases
-- Takes cases in COPY's text format; the database gives each its id and case_id.
COPY medmitra.cases
    (user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at)
FROM STDIN
