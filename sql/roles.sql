-- name: roles
-- Creates the service's login role. It may read the nine columns of medmitra.cases, id and xmin, and nothing else,
-- and it sees one doctor's cases at a time. (Like every role it also has the rights of PUBLIC: by default, to create
-- temporary tables and to connect to other databases.)
-- Run it after schema.sql or existing_table.sql, as the owner of medmitra.cases, who must also have the right to create
-- roles. A second run changes nothing.
-- The file has two parts, because the owner may have no right to create roles. Then let a role with that right run the
-- file first: part 1 creates the role, and part 2 fails. Run it again as the owner: part 1 warns, and part 2 succeeds.
-- Set the password yourself: \password medmitra_cases

-- Part 1: the role, and its settings.
BEGIN;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'medmitra_cases') THEN
        BEGIN
            CREATE ROLE medmitra_cases;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION '% may not create roles: let a role that may do so run roles.sql first, then run it again',
                current_user;
        END;
    ELSIF EXISTS (
        SELECT
        FROM pg_roles
        WHERE rolname = 'medmitra_cases'
            AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
    ) THEN
        RAISE EXCEPTION 'there is a role medmitra_cases with powers that the service must not have';
    END IF;
    ALTER ROLE medmitra_cases LOGIN;
    -- Settings of the role, not of the connection, so that they also apply behind PgBouncer in transaction mode.
    ALTER ROLE medmitra_cases SET statement_timeout = '5s';  -- Postgres cancels a longer query; the response is 500
    -- A long list is read in one transaction, and its snapshot delays VACUUM. A client that reads too slowly is cut
    -- off.
    ALTER ROLE medmitra_cases SET idle_in_transaction_session_timeout = '60s';
    ALTER ROLE medmitra_cases SET default_transaction_read_only = on;
    ALTER ROLE medmitra_cases SET search_path = medmitra, pg_catalog;
    -- On SSDs random reads cost about as much as sequential reads. With the default of 4, which is for spinning disks,
    -- the planner reads a doctor's rows out of order and sorts them, instead of reading the index in order.
    ALTER ROLE medmitra_cases SET random_page_cost = 1.1;
EXCEPTION WHEN insufficient_privilege THEN
    -- The role exists, and another role has created it.
    RAISE WARNING '% may not change the role medmitra_cases: its settings stay as they are', current_user;
END
$$;

COMMIT;

-- Part 2: its rights.
BEGIN;

-- Give up if a long transaction holds a lock. Otherwise all other sessions would wait behind this one.
SET LOCAL lock_timeout = '3s';

DO $$
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO medmitra_cases', current_database());
END
$$;
GRANT USAGE ON SCHEMA medmitra TO medmitra_cases;
GRANT SELECT (
    id, case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at
) ON medmitra.cases TO medmitra_cases;
DO $$
BEGIN
    -- For a view without xmin, ETags are made from the response.
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'medmitra.cases'::regclass AND attname = 'xmin') THEN
        GRANT SELECT (xmin) ON medmitra.cases TO medmitra_cases;
    END IF;
END
$$;

-- Whether the role that asks is not the service's. It is declared IMMUTABLE so that the planner evaluates it once for
-- each plan: written into the policy, the condition would double the time of a 304 for 1,000 cases. That is safe,
-- because Postgres never uses a plan with row level security for another role than the one it was made for.
CREATE OR REPLACE FUNCTION medmitra.is_other_role() RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN current_user <> 'medmitra_cases';
GRANT EXECUTE ON FUNCTION medmitra.is_other_role() TO PUBLIC;

-- Row level security: even a wrong query of the service returns only the cases of the doctor that set_user_id.sql
-- sets. It returns none if no doctor is set. The view of existing_table.sql contains the same condition.
-- No permissive policy shows the role more than the restrictive one does, because Citus makes restrictive policies
-- permissive on its shards.
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
    IF NOT cases.relrowsecurity OR EXISTS (
        -- The policy of an earlier version, which names no function.
        SELECT
        FROM pg_policy
        WHERE polrelid = cases.oid AND polname = 'as_granted' AND pg_get_expr(polqual, polrelid) = 'true'
    ) THEN
        -- For all other roles only grants decide, as before. Exceptions: Postgres allows COPY FROM and pg_dump only to
        -- the table's owner and to roles with BYPASSRLS.
        DROP POLICY IF EXISTS as_granted ON medmitra.cases;
        CREATE POLICY as_granted ON medmitra.cases USING (medmitra.is_other_role());
        ALTER TABLE medmitra.cases ENABLE ROW LEVEL SECURITY;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = cases.oid AND polname = 'one_doctor') THEN
        CREATE POLICY one_doctor ON medmitra.cases AS RESTRICTIVE TO medmitra_cases
            USING (user_id = nullif(current_setting('medmitra.user_id', true), '')::uuid);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = cases.oid AND polname = 'one_doctor_permissive') THEN
        CREATE POLICY one_doctor_permissive ON medmitra.cases TO medmitra_cases
            USING (user_id = nullif(current_setting('medmitra.user_id', true), '')::uuid);
    END IF;
END
$$;

COMMIT;
