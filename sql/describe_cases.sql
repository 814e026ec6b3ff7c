-- name: describe_cases
-- The kind of medmitra.cases (table or view), and for each column its name, its type and whether this role may read it.
SELECT
    CASE WHEN relation.relkind IN ('r', 'p') THEN 'table' ELSE 'view' END AS kind,
    attribute.attname AS column_name,
    format_type(attribute.atttypid, NULL) AS column_type,
    has_schema_privilege(namespace.oid, 'USAGE')
        AND has_column_privilege(relation.oid, attribute.attnum, 'SELECT') AS readable
FROM pg_namespace AS namespace
JOIN pg_class AS relation ON relation.relnamespace = namespace.oid
JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
WHERE namespace.nspname = 'medmitra'
    AND relation.relname = 'cases'
    AND relation.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND attribute.attnum > 0
    AND NOT attribute.attisdropped
ORDER BY attribute.attnum
