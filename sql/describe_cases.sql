-- name: describe_cases
-- The kind of medmitra.cases (table or view), and for each column its name, its type and whether this role may read it.
-- The type of a domain is the type that it is based on.
SELECT
    CASE WHEN relation.relkind IN ('r', 'p') THEN 'table' ELSE 'view' END AS kind,
    attribute.attname AS column_name,
    (
        WITH RECURSIVE type AS (
            SELECT oid, typname, typbasetype
            FROM pg_type
            WHERE oid = attribute.atttypid
            UNION ALL
            SELECT base.oid, base.typname, base.typbasetype
            FROM type
            JOIN pg_type AS base ON base.oid = type.typbasetype
        )
        -- citext may be in any schema.
        SELECT CASE WHEN typname = 'citext' THEN 'citext' ELSE format_type(oid, NULL) END
        FROM type
        WHERE typbasetype = 0
    ) AS column_type,
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
