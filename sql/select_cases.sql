-- name: select_cases
-- The cases of one doctor (user_id: a UUID) in insertion order, at most so many (limit: an integer, or NULL for all);
-- times in UTC, without an offset.
SELECT
    case_id,
    user_id,
    patient_name,
    patient_age,
    patient_gender,
    case_summary,
    status,
    created_at AT TIME ZONE 'UTC' AS created_at,
    updated_at AT TIME ZONE 'UTC' AS updated_at
FROM medmitra.cases
WHERE user_id = %(user_id)s::uuid
ORDER BY id
LIMIT %(limit)s
