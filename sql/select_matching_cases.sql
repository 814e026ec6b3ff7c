-- name: select_matching_cases
-- The rest of a statement that begins with matching_cases: the cases in the requested order, each with the page_info.
-- sort_by: a column, or NULL for insertion order; sort_order: asc or desc; most: the maximum number of cases, or NULL
-- for all; skip: the number of cases to leave out first.
-- max_summary_bytes, max_other_bytes: as in select_cases.
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
    row_version,
    (SELECT total FROM page_info) AS total,
    (SELECT has_next FROM page_info) AS has_next,
    (SELECT has_previous FROM page_info) AS has_previous,
    (SELECT previous_after FROM page_info) AS previous_after
FROM matching
WHERE after_cursor
ORDER BY
    CASE WHEN %(sort_by)s = 'created_at' AND %(sort_order)s = 'asc' THEN matching.created_at END,
    CASE WHEN %(sort_by)s = 'created_at' AND %(sort_order)s = 'desc' THEN matching.created_at END DESC NULLS LAST,
    CASE WHEN %(sort_by)s = 'updated_at' AND %(sort_order)s = 'asc' THEN matching.updated_at END,
    CASE WHEN %(sort_by)s = 'updated_at' AND %(sort_order)s = 'desc' THEN matching.updated_at END DESC NULLS LAST,
    CASE WHEN %(sort_by)s = 'patient_name' AND %(sort_order)s = 'asc' THEN patient_name END,
    CASE WHEN %(sort_by)s = 'patient_name' AND %(sort_order)s = 'desc' THEN patient_name END DESC NULLS LAST,
    CASE WHEN %(sort_by)s = 'patient_age' AND %(sort_order)s = 'asc' THEN patient_age END,
    CASE WHEN %(sort_by)s = 'patient_age' AND %(sort_order)s = 'desc' THEN patient_age END DESC NULLS LAST,
    CASE WHEN %(sort_by)s = 'status' AND %(sort_order)s = 'asc' THEN status END,
    CASE WHEN %(sort_by)s = 'status' AND %(sort_order)s = 'desc' THEN status END DESC NULLS LAST,
    CASE WHEN %(backwards)s THEN id END DESC,
    id
LIMIT %(most)s
OFFSET %(skip)s
