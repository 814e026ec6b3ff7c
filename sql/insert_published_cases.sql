-- name: insert_published_cases
-- The two cases of the published example. Returns one row per case that was not there yet.
INSERT INTO medmitra.cases
    (case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at)
VALUES
    (
        'a1b2c3d4-5678-90ab-cdef-1234567890ab', 'b8acad4b-4944-4d66-b405-de70886e7248', 'John Doe', 45, 'male',
        'Patient presents with chest pain and shortness of breath', 'completed',
        '2026-03-04T10:30:00Z', '2026-03-04T11:45:00Z'
    ),
    (
        'b2c3d4e5-6789-01bc-def0-2345678901bc', 'b8acad4b-4944-4d66-b405-de70886e7248', 'Jane Smith', 32, 'female',
        'Follow-up appointment for diabetes management', 'analyzing',
        '2026-03-03T14:20:00Z', '2026-03-03T14:20:00Z'
    )
ON CONFLICT (case_id) DO NOTHING
RETURNING case_id
