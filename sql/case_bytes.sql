-- name: case_bytes
-- The size of the texts of a case in bytes: an expression that other statements include. Postgres knows the size of a
-- large text without reading it.
coalesce(octet_length(patient_name::text), 0) + coalesce(octet_length(patient_gender::text), 0)
    + coalesce(octet_length(case_summary::text), 0) + coalesce(octet_length(status::text), 0)
