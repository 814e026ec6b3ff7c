-- name: select_cases
-- The rest of a statement that begins with case_columns: one doctor's cases (user_id: a UUID) in insertion order, at
-- most limit of them (limit: an integer, or NULL for all). Each has its version (row_version: row_version.sql, or NULL
-- for none).
    %(row_version)s AS row_version
FROM medmitra.cases
WHERE user_id = %(user_id)s::uuid
ORDER BY id
LIMIT %(limit)s
