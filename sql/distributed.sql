-- name: distributed
-- Distributes medmitra.cases by hash of user_id over the workers of a Citus cluster, with all its cases. Run it after
-- schema.sql and roles.sql, on the coordinator, as a superuser. A second run changes nothing. docs/operations.md says
-- what else a cluster needs.
--
-- Stop the service and its PgBouncers first: sessions that began before this file would read empty lists.
-- case_id is then unique for each doctor: a unique constraint of a distributed table must contain user_id.

-- Citus sends SET LOCAL, and so the doctor of set_user_id.sql, to the shards. In a transaction of its own, so that a
-- session that begins during the next one has it.
ALTER ROLE medmitra_cases SET citus.propagate_set_commands = 'local';
-- Citus copies policies to the shards, but not the function of roles.sql that they call if it is older than the cluster.
SELECT create_distributed_function('medmitra.is_other_role()');

BEGIN;

SET LOCAL statement_timeout = 0;
-- The trigger of schema.sql reads and writes nothing but its row, so it is safe on the shards.
SET LOCAL citus.enable_unsafe_triggers = on;

DO $$
DECLARE
    cases CONSTANT regclass := 'medmitra.cases';
BEGIN
    IF EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = cases) THEN
        RETURN;
    ELSIF (SELECT relkind FROM pg_class WHERE oid = cases) <> 'r' THEN
        RAISE EXCEPTION 'medmitra.cases is a view, or has partitions; only a table can be distributed';
    ELSIF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = cases AND polname = 'one_doctor_permissive') THEN
        RAISE EXCEPTION 'run roles.sql first';
    ELSIF EXISTS (
        SELECT FROM pg_stat_activity WHERE usename = 'medmitra_cases' AND datname = current_database()
    ) THEN
        RAISE EXCEPTION 'medmitra_cases has sessions; stop the service and its PgBouncers first';
    END IF;
    DROP INDEX medmitra.cases_user_id_id_idx;
    ALTER TABLE medmitra.cases
        DROP CONSTRAINT cases_pkey,
        DROP CONSTRAINT cases_case_id_key,
        -- schema.sql creates an index of this name if there is none. The primary key serves instead of it.
        ADD CONSTRAINT cases_user_id_id_idx PRIMARY KEY (user_id, id),
        ADD CONSTRAINT cases_user_id_case_id_key UNIQUE (user_id, case_id);
    -- Citus copies no grant of xmin to the shards, also not to those that it moves later.
    GRANT SELECT ON medmitra.cases TO medmitra_cases;
    PERFORM create_distributed_table('medmitra.cases', 'user_id');
END
$$;

COMMIT;
