-- name: roles
-- The role the service logs in as: it is granted the nine columns of medmitra.cases, the order they come in and their
-- rows' versions, to read, and nothing else; and it sees one doctor's cases at a time. (Like every role it also has what
-- is granted to PUBLIC: by default, to make temporary tables and to connect to other databases.) Run by the owner of
-- medmitra.cases, who must also be allowed to create roles, after schema.sql or existing_table.sql; running it
-- again changes nothing.
-- The password is yours to set: \password medmitra_cases

BEGIN;

-- Give up rather than queue behind a long transaction, with everybody else queueing behind us.
SET LOCAL lock_timeout = '3s';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'medmitra_cases') THEN
        CREATE ROLE medmitra_cases;
    ELSIF EXISTS (
        SELECT
        FROM pg_roles
        WHERE rolname = 'medmitra_cases'
            AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
    ) THEN
        RAISE EXCEPTION 'there is a role medmitra_cases with powers that the service must not have';
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO medmitra_cases', current_database());
END
$$;

GRANT USAGE ON SCHEMA medmitra TO medmitra_cases;
GRANT SELECT (
    id, case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at
) ON medmitra.cases TO medmitra_cases;
DO $$
BEGIN
    -- Where there is none, MEDMITRA_ETAG_SOURCE=body.
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'medmitra.cases'::regclass AND attname = 'xmin') THEN
        GRANT SELECT (xmin) ON medmitra.cases TO medmitra_cases;
    END IF;
END
$$;

-- Row level security: should a query of the service ever ask for too much, it still gets no case but those of the
-- doctor it says it asks for (set_user_id.sql), and none if it says nothing. The view of existing_table.sql has a
-- condition of its own to that effect.
DO $$
DECLARE
    cases pg_class;
BEGIN
    SELECT * INTO cases FROM pg_class WHERE oid = 'medmitra.cases'::regclass;
    IF cases.relkind NOT IN ('r', 'p') THEN
        IF pg_get_viewdef(cases.oid) NOT LIKE '%medmitra.user_id%' THEN
            RAISE WARNING 'medmitra.cases shows the cases of all doctors at once; see existing_table.sql';
        END IF;
        RETURN;
    END IF;
    IF NOT cases.relrowsecurity THEN
        -- For everybody else grants decide, as before; but for COPY FROM and pg_dump, which Postgres then allows only
        -- to the table's owner and to roles with BYPASSRLS.
        DROP POLICY IF EXISTS as_granted ON medmitra.cases;
        CREATE POLICY as_granted ON medmitra.cases USING (true);
        ALTER TABLE medmitra.cases ENABLE ROW LEVEL SECURITY;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = cases.oid AND polname = 'one_doctor') THEN
        CREATE POLICY one_doctor ON medmitra.cases AS RESTRICTIVE TO medmitra_cases
            USING (user_id = nullif(current_setting('medmitra.user_id', true), '')::uuid);
    END IF;
END
$$;

ALTER ROLE medmitra_cases LOGIN;
-- On the role rather than in the connection, so that they also hold behind PgBouncer in transaction mode.
ALTER ROLE medmitra_cases SET statement_timeout = '5s';  -- a longer query is cancelled and answered with 500
-- A long list is read in one transaction, whose snapshot holds up VACUUM: a reader who is too slow ends it.
ALTER ROLE medmitra_cases SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE medmitra_cases SET default_transaction_read_only = on;
ALTER ROLE medmitra_cases SET search_path = medmitra, pg_catalog;
-- Random reads cost about what sequential ones do on SSDs. The default of 4, meant for spinning disks, makes
-- the planner collect a doctor's rows out of order and sort them instead of reading the index in order.
ALTER ROLE medmitra_cases SET random_page_cost = 1.1;

COMMIT;
