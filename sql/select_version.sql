-- name: select_version
-- The version of all cases of one doctor (user_id: a UUID): that of each row (row_version: row_version.sql), together.
SELECT bit_xor(%(row_version)s) AS version
FROM medmitra.cases
WHERE user_id = %(user_id)s::uuid
