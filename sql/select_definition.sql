-- name: select_definition
-- A hash of the columns and definitions of medmitra.cases and, if it is a view, of the relations that it reads.
WITH RECURSIVE source (oid) AS (
    SELECT 'medmitra.cases'::regclass::oid
    UNION
    SELECT dependency.refobjid
    FROM source
    JOIN pg_rewrite AS rule ON rule.ev_class = source.oid
    JOIN pg_depend AS dependency
        ON dependency.classid = 'pg_rewrite'::regclass
        AND dependency.objid = rule.oid
        AND dependency.refclassid = 'pg_class'::regclass
)
SELECT md5(string_agg(concat_ws(' ', oid, pg_get_viewdef(oid), columns), ', ' ORDER BY oid)) AS definition
FROM source
LEFT JOIN (
    SELECT
        attrelid,
        string_agg(
            concat_ws(' ', attnum, attname, format_type(atttypid, atttypmod), attcollation), ', ' ORDER BY attnum
        ) AS columns
    FROM pg_attribute
    WHERE attnum > 0
    GROUP BY attrelid
) AS attribute ON attrelid = oid
