-- name: select_matching_version
-- After matching_cases and select_matching_cases, as page: the version of its cases, what else its headers say, and
-- whether the case to go on after was found. Always one row; of no cases the version is NULL.
SELECT
    seen.version,
    page_info.total,
    page_info.has_next,
    page_info.has_previous,
    page_info.previous_after,
    seen.shown,
    -- The last case of a full page in insertion order, after which the next begins.
    (
        SELECT case_id
        FROM matching
        WHERE after_cursor AND %(sort_by)s::text IS NULL AND %(limit)s::bigint IS NOT NULL
        ORDER BY CASE WHEN %(backwards)s THEN id END DESC, id
        LIMIT 1
        OFFSET %(skip)s + %(limit)s - 1
    ) AS next_after,
    EXISTS (SELECT FROM cursor_case) AS cursor_found
FROM page_info
CROSS JOIN (SELECT bit_xor(row_version) AS version, count(*) AS shown FROM page) AS seen
