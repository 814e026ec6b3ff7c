-- name: select_matching_version
-- The rest of a statement that begins with matching_cases, and has select_matching_cases as page: the version of the
-- cases on the page, the size of the largest (case_bytes: case_bytes.sql, or NULL for none), the values for the headers,
-- and whether the cursor case was found. Always returns one row; without cases its version is NULL.
SELECT
    seen.version,
    seen.largest,
    page_info.total,
    page_info.has_next,
    page_info.has_previous,
    page_info.previous_after,
    seen.shown,
    -- The last case of a full page in insertion order. The next page begins after it.
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
CROSS JOIN (
    SELECT bit_xor(row_version) AS version, max(%(case_bytes)s) AS largest, count(*) AS shown FROM page
) AS seen
