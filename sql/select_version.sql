-- name: select_version
-- The combined row versions (row_version: row_version.sql) of all cases of one doctor (user_id: a UUID), and the size of
-- the largest case (case_bytes: case_bytes.sql, or NULL for none).
SELECT bit_xor((%(row_version)s)::bigint) AS version, max(%(case_bytes)s) AS largest
FROM medmitra.cases
WHERE user_id = %(user_id)s::uuid
