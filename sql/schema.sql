-- name: schema
-- The service's own table, its index and its trigger. Run by the database's owner; running it again changes nothing.

BEGIN;

-- Two of these at once would race for the same names.
DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtextextended('medmitra schema.sql', 0)); END $$;
-- Give up rather than queue behind a long transaction, with everybody else queueing behind us.
SET LOCAL lock_timeout = '3s';

CREATE SCHEMA IF NOT EXISTS medmitra;

CREATE TABLE IF NOT EXISTS medmitra.cases (
    -- Insertion order. created_at cannot give it: clocks tie, jump and are set by whoever inserts.
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    patient_name text NOT NULL,
    patient_age integer NOT NULL,
    patient_gender text NOT NULL,
    case_summary text,
    -- Free text, and nullable like the two times below: the product's backend may write NULL here.
    status text DEFAULT 'pending',
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    -- The years that ISO 8601 writes with four digits. Postgres also knows BC, year 294276 and infinity.
    CONSTRAINT cases_created_at_is_iso_8601
        CHECK (created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'),
    CONSTRAINT cases_updated_at_is_iso_8601
        CHECK (updated_at >= '0001-01-01 00:00:00+00' AND updated_at < '10000-01-01 00:00:00+00')
);

-- One doctor's cases, already in insertion order: select_cases reads them without a sort.
CREATE INDEX IF NOT EXISTS cases_user_id_id_idx ON medmitra.cases (user_id, id);

CREATE OR REPLACE FUNCTION medmitra.set_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := OLD.updated_at;
    IF NEW *<> OLD THEN  -- byte by byte, as not every type has an equality
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END
$$;

-- Whatever an UPDATE says about updated_at, it holds the time of the last change of anything else.
CREATE OR REPLACE TRIGGER set_updated_at BEFORE UPDATE ON medmitra.cases
FOR EACH ROW EXECUTE FUNCTION medmitra.set_updated_at();

COMMIT;
