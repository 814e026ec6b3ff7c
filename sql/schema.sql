-- name: schema
-- Creates the service's table, its index and its trigger. Run it as the database's owner. A second run changes nothing.

BEGIN;

-- The lock serializes concurrent runs, which would otherwise create the same names.
DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtextextended('medmitra schema.sql', 0)); END $$;
-- Give up if a long transaction holds a lock. Otherwise all other sessions would wait behind this one.
SET LOCAL lock_timeout = '3s';

CREATE SCHEMA IF NOT EXISTS medmitra;

CREATE TABLE IF NOT EXISTS medmitra.cases (
    -- Insertion order. created_at cannot give it: times can be equal, clocks jump, and a writer can set it.
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    patient_name text NOT NULL,
    patient_age integer NOT NULL,
    patient_gender text NOT NULL,
    case_summary text,
    -- Free text. Nullable, like created_at and updated_at, because the product's backend may write NULL.
    status text DEFAULT 'pending',
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    -- The years that ISO 8601 writes with four digits. Postgres also allows years BC, years to 294276 and infinity.
    CONSTRAINT cases_created_at_is_iso_8601
        CHECK (created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'),
    CONSTRAINT cases_updated_at_is_iso_8601
        CHECK (updated_at >= '0001-01-01 00:00:00+00' AND updated_at < '10000-01-01 00:00:00+00')
);

-- One doctor's cases in insertion order. With it select_cases needs no sort.
CREATE INDEX IF NOT EXISTS cases_user_id_id_idx ON medmitra.cases (user_id, id);

CREATE OR REPLACE FUNCTION medmitra.set_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := OLD.updated_at;
    IF NEW *<> OLD THEN  -- compares bytes, because some types have no equality operator
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END
$$;

-- updated_at is the time of the last change of any other column. A value in an UPDATE is ignored.
CREATE OR REPLACE TRIGGER set_updated_at BEFORE UPDATE ON medmitra.cases
FOR EACH ROW EXECUTE FUNCTION medmitra.set_updated_at();

COMMIT;
