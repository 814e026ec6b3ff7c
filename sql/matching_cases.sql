-- name: matching_cases
-- The beginning of select_matching_cases and select_matching_version: one doctor's cases (user_id: a UUID) that match.
-- A filter that is NULL was not asked for, and as the values are written into the statement, the planner drops it.
WITH cursor_case AS (
    -- The case to go on after (after: a case_id). Another doctor's is none.
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
        -- Whether it comes after that case, in insertion order or against it (backwards: a boolean); or else before it, or
        -- is it. With user_id, as the planner may otherwise read the cases of all doctors in the order of their id.
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
        AND (%(status)s::text IS NULL OR status = %(status)s)
        AND (%(gender)s::text IS NULL OR patient_gender = %(gender)s)
        AND (
            %(search)s::text IS NULL
            OR strpos(lower(patient_name), lower(%(search)s)) > 0
            OR strpos(lower(case_summary), lower(%(search)s)) > 0
            OR strpos(lower(case_id::text), lower(%(search)s)) > 0
        )
        AND (%(min_age)s::bigint IS NULL OR patient_age >= %(min_age)s)
        AND (%(max_age)s::bigint IS NULL OR patient_age <= %(max_age)s)
        AND (%(start_date)s::timestamptz IS NULL OR created_at >= %(start_date)s)
        AND (%(end_date)s::timestamptz IS NULL OR created_at <= %(end_date)s)
),
page_info AS (
    -- What only a page has to know (limit: an integer, or NULL for none). In insertion order those that were before_cursor belong
    -- to the list as well; in another order (sort_by: a column) they do not.
    SELECT
        count(*) AS total,
        CASE
            WHEN %(after)s::text IS NULL THEN count(*) > %(skip)s + %(limit)s
            ELSE count(*) - count(*) FILTER (WHERE before_cursor) > %(skip)s + %(limit)s
        END AS has_next,
        CASE WHEN %(after)s::text IS NULL THEN false ELSE count(*) FILTER (WHERE before_cursor) > 0 END AS has_previous,
        -- The case after which the page before begins, if that is not the first.
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
