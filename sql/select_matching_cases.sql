-- name: select_matching_cases
-- The rest of a statement that begins with matching_cases and case_columns: the cases in the requested order, each with
-- the page_info.
-- sort_by: a column, or NULL for insertion order; sort_order: asc or desc; most: the maximum number of cases, or NULL
-- for all; skip: the number of cases to leave out first.
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
