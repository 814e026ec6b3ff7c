-- name: describe_source
-- The tables behind medmitra.cases, through any number of views: tables whose row level security hides all rows from
-- their reader (closed_tables) or may hide some (guarded_tables), whether this role may write to one of the tables, and
-- the name of an invalid index. Also whether a table medmitra.cases may contain times that the response cannot, and a
-- sequence that does not count in insertion order.
WITH RECURSIVE source (oid, reader) AS (
    SELECT relation.oid, reader.oid
    FROM pg_class AS relation
    JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
    JOIN pg_roles AS reader ON reader.rolname = current_user
    WHERE namespace.nspname = 'medmitra' AND relation.relname = 'cases'
    UNION
    -- A view reads its tables with the rights of the view's owner.
    SELECT dependency.refobjid, relation.relowner
    FROM source
    JOIN pg_class AS relation ON relation.oid = source.oid
    JOIN pg_rewrite AS rule ON rule.ev_class = source.oid
    JOIN pg_depend AS dependency
        ON dependency.classid = 'pg_rewrite'::regclass
        AND dependency.objid = rule.oid
        AND dependency.refclassid = 'pg_class'::regclass
        AND dependency.refobjid <> source.oid
),
source_relation AS (
    SELECT
        relation.*,
        source.reader,
        format('%I.%I', namespace.nspname, relation.relname) AS name
    FROM source
    JOIN pg_class AS relation ON relation.oid = source.oid
    JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
),
-- The tables with row level security for their reader, and the policies that admit it to rows.
secured AS (
    SELECT
        relation.name,
        (
            SELECT array_agg(policy.polname)
            FROM pg_policy AS policy
            WHERE policy.polrelid = relation.oid
                AND policy.polpermissive
                AND policy.polcmd IN ('r', '*')
                AND EXISTS (
                    SELECT
                    FROM unnest(policy.polroles) AS role (oid)
                    WHERE role.oid = 0 OR pg_has_role(reader.oid, role.oid, 'USAGE')
                )
        ) AS policies
    FROM source_relation AS relation
    JOIN pg_roles AS reader ON reader.oid = relation.reader
    WHERE relation.relrowsecurity
        AND NOT (reader.rolsuper OR reader.rolbypassrls)
        AND (relation.relforcerowsecurity OR NOT pg_has_role(reader.oid, relation.relowner, 'USAGE'))
)
SELECT
    (SELECT string_agg(DISTINCT name, ', ') FROM secured WHERE policies IS NULL) AS closed_tables,
    -- Except tables with the policies of roles.sql, which hide only the cases of other doctors.
    (
        SELECT string_agg(DISTINCT name, ', ')
        FROM secured
        WHERE NOT policies && '{as_granted, one_doctor_permissive}'
    ) AS guarded_tables,
    coalesce(
        (
            SELECT bool_or(
                has_any_column_privilege(relation.oid, 'INSERT, UPDATE')
                OR has_table_privilege(relation.oid, 'DELETE, TRUNCATE')
            )
            FROM source_relation AS relation
        ),
        false
    ) AS may_write,
    (
        SELECT min(format('%I.%I', namespace.nspname, named.relname))
        FROM source_relation AS relation
        JOIN pg_index AS index ON index.indrelid = relation.oid AND NOT index.indisvalid
        JOIN pg_class AS named ON named.oid = index.indexrelid
        JOIN pg_namespace AS namespace ON namespace.oid = named.relnamespace
    ) AS invalid_index,
    EXISTS (
        SELECT
        FROM source_relation AS relation
        WHERE relation.name = 'medmitra.cases'
            AND relation.relkind IN ('r', 'p')
            AND 2 > (
                SELECT count(*)
                FROM pg_constraint
                WHERE conrelid = relation.oid
                    AND convalidated
                    AND conname IN ('cases_created_at_is_iso_8601', 'cases_updated_at_is_iso_8601')
            )
    ) AS any_time,
    (
        SELECT min(format('%I.%I', namespace.nspname, named.relname))
        FROM source_relation AS relation
        JOIN pg_sequence AS sequence ON sequence.seqcache > 1 OR sequence.seqincrement < 0 OR sequence.seqcycle
        JOIN pg_class AS named ON named.oid = sequence.seqrelid
        JOIN pg_namespace AS namespace ON namespace.oid = named.relnamespace
        -- A column owns the sequence, or its default reads it.
        WHERE EXISTS (
            SELECT
            FROM pg_depend AS owned
            WHERE owned.classid = 'pg_class'::regclass
                AND owned.objid = named.oid
                AND owned.refclassid = 'pg_class'::regclass
                AND owned.refobjid = relation.oid
        ) OR EXISTS (
            SELECT
            FROM pg_attrdef AS column_default
            JOIN pg_depend AS used ON used.classid = 'pg_attrdef'::regclass AND used.objid = column_default.oid
            WHERE column_default.adrelid = relation.oid
                AND used.refclassid = 'pg_class'::regclass
                AND used.refobjid = named.oid
        )
    ) AS unordered_sequence
