-- name: partitioned
-- Divides medmitra.cases into 16 partitions by hash of user_id, with all its cases. For another number of them, change
-- 16 first. Run it after schema.sql, as the owner of the table. A second run changes nothing.
--
-- The service goes on reading meanwhile. Writers wait until all cases are copied, and all sessions wait for less than a
-- second when the partitioned table replaces the other one. The file changes nothing if it fails. It fails if a view or
-- a foreign key depends on the table, and if others use the table whenever it tries to replace it.
-- Grants and policies stay. The table also keeps the trigger of schema.sql; a warning names other indexes and triggers.
-- case_id is then unique for each doctor: a unique constraint of a partitioned table must contain user_id.
-- Run VACUUM ANALYZE medmitra.cases afterwards.

BEGIN;

SET LOCAL statement_timeout = 0;
SET LOCAL row_security = off;  -- a row that the owner cannot see is an error, and is not lost

DO $$
DECLARE
    partitions CONSTANT integer := 16;
    cases pg_class;
    columns text;
    left_out text;
    part record;
BEGIN
    SELECT * INTO cases FROM pg_class WHERE oid = 'medmitra.cases'::regclass;
    IF cases.relkind = 'p' THEN
        RETURN;
    ELSIF cases.relkind <> 'r' THEN
        RAISE EXCEPTION 'medmitra.cases is not a table';
    END IF;
    EXECUTE format('SET LOCAL ROLE %I', pg_get_userbyid(cases.relowner));
    SET LOCAL lock_timeout = '3s';
    LOCK TABLE medmitra.cases IN SHARE MODE;

    CREATE TABLE medmitra.cases_partitioned (LIKE medmitra.cases INCLUDING ALL EXCLUDING INDEXES)
        PARTITION BY HASH (user_id);
    FOR number IN 0 .. partitions - 1 LOOP
        EXECUTE format(
            'CREATE TABLE medmitra.cases_%s PARTITION OF medmitra.cases_partitioned'
            ' FOR VALUES WITH (MODULUS %s, REMAINDER %1$s)',
            number,
            partitions
        );
    END LOOP;
    SELECT string_agg(quote_ident(attname), ', ')
    INTO columns
    FROM pg_attribute
    WHERE attrelid = cases.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    EXECUTE format(
        'INSERT INTO medmitra.cases_partitioned (%s) OVERRIDING SYSTEM VALUE SELECT %1$s FROM medmitra.cases',
        columns
    );
    PERFORM setval(
        pg_get_serial_sequence('medmitra.cases_partitioned', 'id'),
        nextval(pg_get_serial_sequence('medmitra.cases', 'id')),
        false
    );
    ALTER TABLE medmitra.cases_partitioned ADD PRIMARY KEY (user_id, id), ADD UNIQUE (user_id, case_id);
    CREATE TRIGGER set_updated_at BEFORE UPDATE ON medmitra.cases_partitioned
    FOR EACH ROW EXECUTE FUNCTION medmitra.set_updated_at();
    ANALYZE medmitra.cases_partitioned;

    FOR part IN
        SELECT privilege_type, NULL AS attname, grantee, is_grantable
        FROM aclexplode(cases.relacl)
        UNION ALL
        SELECT privilege_type, format('(%I)', attname), grantee, is_grantable
        FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = cases.oid
    LOOP
        EXECUTE format('GRANT %s %s ON medmitra.cases_partitioned TO ', part.privilege_type, part.attname)
            || CASE WHEN part.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(part.grantee)) END
            || CASE WHEN part.is_grantable AND part.grantee <> cases.relowner THEN ' WITH GRANT OPTION' ELSE '' END;
    END LOOP;
    FOR part IN SELECT * FROM pg_policies WHERE schemaname = 'medmitra' AND tablename = 'cases' LOOP
        EXECUTE format(
            'CREATE POLICY %I ON medmitra.cases_partitioned AS %s FOR %s TO %s',
            part.policyname,
            part.permissive,
            part.cmd,
            (SELECT string_agg(quote_ident(name), ', ') FROM unnest(part.roles) AS name)
        ) || coalesce(' USING (' || part.qual || ')', '') || coalesce(' WITH CHECK (' || part.with_check || ')', '');
    END LOOP;
    IF cases.relrowsecurity THEN
        ALTER TABLE medmitra.cases_partitioned ENABLE ROW LEVEL SECURITY;
    END IF;
    IF cases.relforcerowsecurity THEN
        ALTER TABLE medmitra.cases_partitioned FORCE ROW LEVEL SECURITY;
    END IF;

    SELECT string_agg(name, ', ')
    INTO left_out
    FROM (
        SELECT indexrelid::regclass::text
        FROM pg_index
        WHERE indrelid = cases.oid
            AND indexrelid NOT IN (
                SELECT oid
                FROM pg_class
                WHERE relnamespace = cases.relnamespace
                    AND relname IN ('cases_pkey', 'cases_case_id_key', 'cases_user_id_id_idx')
            )
        UNION ALL
        SELECT tgname
        FROM pg_trigger
        WHERE tgrelid = cases.oid AND NOT tgisinternal AND tgname <> 'set_updated_at'
    ) AS found (name);
    IF left_out IS NOT NULL THEN
        RAISE WARNING 'the partitioned table does not have: %', left_out;
    END IF;

    -- All sessions wait behind this lock while it waits for those that read. So it gives up soon, and tries again.
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1 .. 60 LOOP
        BEGIN
            LOCK TABLE medmitra.cases IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 60 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    DROP TABLE medmitra.cases;
    ALTER TABLE medmitra.cases_partitioned RENAME TO cases;
    ALTER SEQUENCE medmitra.cases_partitioned_id_seq RENAME TO cases_id_seq;
    -- schema.sql creates an index of this name if there is none. The primary key serves instead of it.
    ALTER INDEX medmitra.cases_partitioned_pkey RENAME TO cases_user_id_id_idx;
    ALTER INDEX medmitra.cases_partitioned_user_id_case_id_key RENAME TO cases_user_id_case_id_key;
END
$$;

COMMIT;
