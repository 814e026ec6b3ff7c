-- name: describe_source
-- The tables that medmitra.cases is or reads: whether row level security hides their rows from the view's owner,
-- whether this role may write them, and the index left behind by an interrupted CREATE INDEX CONCURRENTLY.
WITH cases AS (
    SELECT relation.oid, relation.relkind, relation.relowner
    FROM pg_class AS relation
    JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
    WHERE namespace.nspname = 'medmitra' AND relation.relname = 'cases'
),
source AS (
    SELECT cases.oid, false AS hidden
    FROM cases
    UNION
    SELECT
        base.oid,
        base.relrowsecurity
            AND (base.relforcerowsecurity OR base.relowner <> cases.relowner)
            AND NOT (owner.rolsuper OR owner.rolbypassrls)
    FROM cases
    JOIN pg_roles AS owner ON owner.oid = cases.relowner
    JOIN pg_rewrite AS rule ON rule.ev_class = cases.oid
    JOIN pg_depend AS dependency
        ON dependency.classid = 'pg_rewrite'::regclass
        AND dependency.objid = rule.oid
        AND dependency.refclassid = 'pg_class'::regclass
    JOIN pg_class AS base ON base.oid = dependency.refobjid AND base.relkind IN ('r', 'p')
)
SELECT
    coalesce(bool_or(source.hidden), false) AS hidden,
    coalesce(
        bool_or(
            has_any_column_privilege(source.oid, 'INSERT, UPDATE')
            OR has_table_privilege(source.oid, 'DELETE, TRUNCATE')
        ),
        false
    ) AS may_write,
    (
        SELECT min(index.indexrelid::regclass::text)
        FROM pg_index AS index
        WHERE index.indrelid IN (SELECT oid FROM source) AND NOT index.indisvalid
    ) AS invalid_index
FROM source
