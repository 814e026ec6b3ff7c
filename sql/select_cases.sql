-- name: select_cases
-- One doctor's cases (user_id: a UUID) in insertion order, at most limit of them (limit: an integer, or NULL for all).
-- The times are in UTC, without an offset. Each row has its version (row_version: row_version.sql, or NULL for none).
SELECT
    case_id,
    user_id,
    patient_name,
    patient_age,
    patient_gender,
    case_summary,
    status,
    created_at AT TIME ZONE 'UTC' AS created_at,
    updated_at AT TIME ZONE 'UTC' AS updated_at,
    %(row_version)s AS row_version
FROM medmitra.cases
WHERE user_id = %(user_id)s::uuid
ORDER BY id
LIMIT %(limit)s
