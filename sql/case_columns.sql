-- name: case_columns
-- The columns of a case: the part before select_cases, and before select_matching_cases.
-- '(left out: too large)' replaces a summary of more than max_summary_bytes, and another text of more than
-- max_other_bytes (integers, or NULL for no limit). Postgres knows the size of a large text without reading it.
-- coalesce() has no effect on values, and the planner removes it. Postgres refuses it for types other than text and
-- those that become text implicitly (varchar, char, citext, domains): their values would not be what they seem.
-- The times are in UTC, without an offset. AT TIME ZONE 'UTC' would not do: UTC is also an abbreviation, which
-- TimeZone = 'UTC+5' and timezone_abbreviations define differently.
SELECT
    case_id,
    user_id,
    CASE
        WHEN octet_length(coalesce(NULL::text, patient_name)) > %(max_other_bytes)s THEN '(left out: too large)'
        ELSE patient_name::text
    END AS patient_name,
    patient_age,
    CASE
        WHEN octet_length(coalesce(NULL::text, patient_gender)) > %(max_other_bytes)s THEN '(left out: too large)'
        ELSE patient_gender::text
    END AS patient_gender,
    CASE
        WHEN octet_length(coalesce(NULL::text, case_summary)) > %(max_summary_bytes)s THEN '(left out: too large)'
        ELSE case_summary::text
    END AS case_summary,
    CASE
        WHEN octet_length(coalesce(NULL::text, status)) > %(max_other_bytes)s THEN '(left out: too large)'
        ELSE status::text
    END AS status,
    created_at::timestamptz AT TIME ZONE INTERVAL '0' AS created_at,
    updated_at::timestamptz AT TIME ZONE INTERVAL '0' AS updated_at,
