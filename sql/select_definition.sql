-- name: select_definition
-- The definition of medmitra.cases and of all relations that it reads: through views, and the partitions of tables.
-- definition: a hash of what decides the content of a response, apart from the rows.
-- without_row_versions: why a row may change without its xmin; NULL if that cannot happen.
-- is_distributed: whether Citus reads the rows from other servers. Citus adds a trigger to each table that it distributes.
-- Its own catalogue is not read, because Postgres refuses a query that names a table that does not exist.
-- With many partitions the planner expects much work, and compiling (jit) would take 3 s instead of 0.1 s.
SET LOCAL jit = off;
WITH RECURSIVE source (oid) AS (
    SELECT 'medmitra.cases'::regclass::oid
    UNION
    SELECT part.oid
    FROM source
    CROSS JOIN LATERAL (
        SELECT dependency.refobjid
        FROM pg_rewrite AS rule
        JOIN pg_depend AS dependency
            ON dependency.classid = 'pg_rewrite'::regclass
            AND dependency.objid = rule.oid
            AND dependency.refclassid = 'pg_class'::regclass
        WHERE rule.ev_class = source.oid AND rule.ev_type = '1'
        UNION ALL
        SELECT inhrelid
        FROM pg_inherits
        WHERE inhparent = source.oid
    ) AS part (oid)
),
source_relation AS (
    SELECT
        relation.oid,
        relation.relkind,
        format('%I.%I', namespace.nspname, relation.relname) AS name,
        access_method.amname AS access_method,
        rule.oid AS rule_oid,
        rule.ev_action::text AS view_tree
    FROM source
    JOIN pg_class AS relation ON relation.oid = source.oid AND relation.relkind IN ('r', 'p', 'v', 'm', 'f')
    JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
    LEFT JOIN pg_am AS access_method ON access_method.oid = relation.relam
    LEFT JOIN pg_rewrite AS rule ON rule.ev_class = relation.oid AND rule.ev_type = '1'
),
definition (part) AS (
    SELECT concat_ws(
        ' ',
        relation.oid,
        pg_get_viewdef(relation.oid),
        attribute.attnum,
        attribute.attname,
        format_type(attribute.atttypid, attribute.atttypmod),
        type.typbasetype,
        attribute.attcollation,
        -- The value of a generated column need not be stored.
        CASE WHEN attribute.attgenerated <> '' THEN pg_get_expr(generated.adbin, generated.adrelid) END
    )
    FROM source_relation AS relation
    JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid AND attribute.attnum > 0
    LEFT JOIN pg_type AS type ON type.oid = attribute.atttypid
    LEFT JOIN pg_attrdef AS generated
        ON generated.adrelid = attribute.attrelid AND generated.adnum = attribute.attnum
    UNION ALL
    SELECT concat_ws(' ', called.oid, called.prosrc, called.prosqlbody)
    FROM source_relation AS relation
    JOIN pg_depend AS dependency
        ON dependency.classid = 'pg_rewrite'::regclass
        AND dependency.objid = relation.rule_oid
        AND dependency.refclassid = 'pg_proc'::regclass
    JOIN pg_proc AS called ON called.oid = dependency.refobjid
    UNION ALL
    -- Views cast enumerations to text, and a label can be renamed.
    SELECT concat_ws(' ', oid, enumlabel)
    FROM pg_enum
),
obstacle (reason) AS (
    SELECT name || CASE relkind
        WHEN 'f' THEN ' is a foreign table'
        WHEN 'm' THEN ' is a materialized view'
        WHEN 'r' THEN ' is a table of the access method ' || nullif(access_method, 'heap')
    END
    FROM source_relation
    UNION ALL
    -- Only simple views: those of which Postgres could delete rows (bit 16), and which have no subqueries.
    SELECT name || ' is a view that joins or aggregates'
    FROM source_relation
    WHERE relkind = 'v'
        AND (
            pg_relation_is_updatable(oid, false) & 16 = 0
            OR view_tree ~ '\{SUBLINK '
            OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = source_relation.oid AND ev_type <> '1')
        )
    UNION ALL
    -- Functions of an extension or of the operator may read other rows, even if they are declared immutable.
    SELECT name || ' is a view that calls functions whose results may change'
    FROM source_relation
    WHERE relkind = 'v'
        AND (
            view_tree ~ '\{(SQLVALUEFUNCTION|NEXTVALUEEXPR) '
            OR EXISTS (
                SELECT
                FROM regexp_matches(view_tree, ':(?:op)?funcid (\d+)', 'g') AS call (function_oid)
                JOIN pg_proc AS called ON called.oid = call.function_oid[1]::oid
                WHERE called.oid >= 16384 OR (called.provolatile <> 'i' AND called.proname <> 'current_setting')
            )
        )
    UNION ALL
    SELECT 'the role cannot read the column xmin of medmitra.cases'
    WHERE NOT EXISTS (
        SELECT
        FROM pg_attribute
        WHERE attrelid = 'medmitra.cases'::regclass
            AND attname = 'xmin'
            AND has_column_privilege(attrelid, attnum, 'SELECT')
    )
    UNION ALL
    SELECT name || ' is a view that does not read xmin'
    FROM source_relation
    WHERE relkind = 'v'
        AND NOT EXISTS (
            SELECT
            FROM pg_depend AS dependency
            JOIN pg_attribute AS attribute
                ON attribute.attrelid = dependency.refobjid AND attribute.attnum = dependency.refobjsubid
            WHERE dependency.classid = 'pg_rewrite'::regclass
                AND dependency.objid = source_relation.rule_oid
                AND dependency.refclassid = 'pg_class'::regclass
                AND attribute.attname = 'xmin'
        )
)
SELECT
    (SELECT md5(string_agg(part, '; ' ORDER BY part)) FROM definition) AS definition,
    (SELECT string_agg(reason, '; ') FROM obstacle) AS without_row_versions,
    EXISTS (
        SELECT
        FROM source_relation AS relation
        JOIN pg_trigger AS trigger ON trigger.tgrelid = relation.oid
        JOIN pg_proc AS called ON called.oid = trigger.tgfoid AND called.proname = 'citus_truncate_trigger'
    ) AS is_distributed
