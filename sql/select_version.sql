-- name: select_version
-- The combined row versions (row_version: row_version.sql) of all cases of one doctor (user_id: a UUID).
SELECT bit_xor(%(row_version)s) AS version
FROM medmitra.cases
WHERE user_id = %(user_id)s::uuid
