-- name: select_cases
-- The cases of one doctor (user_id: a UUID) in insertion order, at most so many (limit: an integer, or NULL for all);
-- times in UTC, without an offset; and each row's version (row_version: row_version.sql, or NULL to do without).
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
