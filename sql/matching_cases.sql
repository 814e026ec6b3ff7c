-- name: matching_cases
-- The first part of select_matching_cases and select_matching_version: one doctor's matching cases (user_id: a UUID).
-- A NULL parameter is a filter that was not requested. psycopg2 writes the values into the statement, so the planner
-- removes such a filter. status, gender: a list of texts, (NULL) if not requested, so coalesce is the first text or NULL.
-- IN with one text is the same as =.
WITH cursor_case AS (
    -- The case after which the list continues (after: a case_id). A case of another doctor is not found.
    SELECT id
    FROM medmitra.cases
    WHERE user_id = %(user_id)s::uuid AND case_id = %(after)s
),
matching AS NOT MATERIALIZED (
    SELECT
        id,
        case_id,
        user_id,
        patient_name,
        patient_age,
        patient_gender,
        case_summary,
        status,
        created_at,
        updated_at,
        (%(row_version)s)::bigint AS row_version,
        -- after_cursor: the row follows the cursor case, in insertion order or in reverse (backwards: a boolean).
        -- before_cursor: it precedes the cursor case, or is that case. Both compare user_id too, because otherwise the
        -- planner may read the cases of all doctors in the order of id.
        CASE
            WHEN %(after)s::text IS NULL THEN true
            WHEN %(backwards)s THEN (user_id, id) < (%(user_id)s::uuid, (SELECT id FROM cursor_case))
            ELSE (user_id, id) > (%(user_id)s::uuid, (SELECT id FROM cursor_case))
        END AS after_cursor,
        CASE
            WHEN %(after)s::text IS NULL THEN false
            WHEN %(backwards)s THEN (user_id, id) >= (%(user_id)s::uuid, (SELECT id FROM cursor_case))
            ELSE (user_id, id) <= (%(user_id)s::uuid, (SELECT id FROM cursor_case))
        END AS before_cursor
    FROM medmitra.cases
    WHERE user_id = %(user_id)s::uuid
        -- An index serves the first comparison. The second is exact, also if the column's type or collation is not.
        AND (coalesce %(status)s IS NULL OR (status IN %(status)s AND status::text COLLATE "C" IN %(status)s))
        AND (
            coalesce %(gender)s IS NULL
            OR (patient_gender IN %(gender)s AND patient_gender::text COLLATE "C" IN %(gender)s)
        )
        AND (
            %(search)s::text IS NULL
            -- The locale of the database says which letters belong together, whatever the collation of a column is.
            -- Postgres up to 17 cannot search under a nondeterministic collation.
            OR strpos(lower(patient_name COLLATE "default") COLLATE "C", lower(%(search)s) COLLATE "C") > 0
            OR strpos(lower(case_summary COLLATE "default") COLLATE "C", lower(%(search)s) COLLATE "C") > 0
            OR strpos(lower(case_id::text COLLATE "default") COLLATE "C", lower(%(search)s) COLLATE "C") > 0
        )
        AND (%(min_age)s::bigint IS NULL OR patient_age >= %(min_age)s)
        AND (%(max_age)s::bigint IS NULL OR patient_age <= %(max_age)s)
        AND (%(start_date)s::timestamptz IS NULL OR created_at >= %(start_date)s)
        AND (%(end_date)s::timestamptz IS NULL OR created_at <= %(end_date)s)
        AND (%(updated_since)s::timestamptz IS NULL OR updated_at >= %(updated_since)s)
),
page_info AS (
    -- Needed for a page only (limit: an integer, or NULL for the whole list). In insertion order the cases that are
    -- before_cursor also belong to the list. In another order (sort_by: a column) they do not.
    SELECT
        count(*) AS total,
        CASE
            WHEN %(after)s::text IS NULL THEN count(*) > %(skip)s + %(limit)s
            ELSE count(*) - count(*) FILTER (WHERE before_cursor) > %(skip)s + %(limit)s
        END AS has_next,
        CASE WHEN %(after)s::text IS NULL THEN false ELSE count(*) FILTER (WHERE before_cursor) > 0 END AS has_previous,
        -- The case after which the previous page begins. NULL if that is the first page.
        (
            SELECT case_id
            FROM matching
            WHERE before_cursor AND %(sort_by)s::text IS NULL AND %(limit)s::bigint IS NOT NULL
            ORDER BY CASE WHEN %(backwards)s THEN id END, id DESC
            LIMIT 1
            OFFSET %(limit)s
        ) AS previous_after
    FROM matching
    WHERE %(limit)s::bigint IS NOT NULL AND (after_cursor OR %(sort_by)s::text IS NULL)
)
