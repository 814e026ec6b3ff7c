"""A Postgres whose roles, rights and policies are those of a Supabase project."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
from psycopg2.extensions import make_dsn

from medmitra_cases.embedded import embedded_postgres
from medmitra_cases.testing.postgres import new_database, open_folder
from tests.support.factories import DOCTOR, PRODUCT_TABLE, execute

# The owner of a project, postgres, is no superuser (https://supabase.com/docs/guides/database/postgres/roles).
# plain_owner is an owner that may not even create roles.
_ROLES = """
    CREATE ROLE anon NOLOGIN NOINHERIT;
    CREATE ROLE authenticated NOLOGIN NOINHERIT;
    CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
    CREATE ROLE postgres LOGIN CREATEROLE CREATEDB REPLICATION BYPASSRLS;
    CREATE ROLE plain_owner LOGIN;
    GRANT anon, authenticated, service_role TO postgres;
"""

# The functions that policies call, and the rights that all new tables of the schema public give to clients.
_PLATFORM = """
    CREATE SCHEMA auth;
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
        SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid
    $$;
    GRANT USAGE ON SCHEMA auth, public TO anon, authenticated, service_role, {owner};
    GRANT CREATE ON SCHEMA public TO {owner};
    ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public
        GRANT ALL ON TABLES TO anon, authenticated, service_role;
"""

_POLICIES = """
    ALTER TABLE public.cases ENABLE ROW LEVEL SECURITY;
    CREATE POLICY "Doctors read their cases" ON public.cases FOR SELECT TO authenticated
        USING ((SELECT auth.uid()) = doctor_id);
    CREATE POLICY "Doctors add their cases" ON public.cases FOR INSERT TO authenticated
        WITH CHECK ((SELECT auth.uid()) = doctor_id);
"""

_CASES = """
    INSERT INTO public.cases (case_id, doctor_id, patient_name, patient_age, patient_gender)
    VALUES ('1', %s, 'Ada', 36, 'female'), ('2', gen_random_uuid(), 'Another doctor''s patient', 1, 'male')
"""


@contextmanager
def supabase_server() -> Iterator[str]:
    """Run the server until the block ends; yield the connection string of its superuser."""
    with open_folder() as folder, embedded_postgres(folder, durable=False) as dsn:
        admin_dsn = make_dsn(dsn, user="supabase_admin")
        with closing(psycopg2.connect(dsn)) as bootstrap, bootstrap:
            execute(bootstrap, "CREATE ROLE supabase_admin SUPERUSER LOGIN")
        with closing(psycopg2.connect(admin_dsn)) as admin, admin:
            execute(admin, f"ALTER ROLE postgres RENAME TO bootstrap; {_ROLES}")
        yield admin_dsn


@contextmanager
def supabase_database(admin_dsn: str, *, owner: str = "postgres") -> Iterator[str]:
    """Make a database with the product's table and two cases; yield the connection string of its owner."""
    with closing(psycopg2.connect(admin_dsn)) as server:
        server.autocommit = True
        try:
            with new_database(admin_dsn) as dsn:
                with closing(psycopg2.connect(dsn)) as admin, admin:
                    execute(admin, _PLATFORM.format(owner=owner))
                    # A project's owner may create schemas; it is the owner of its database.
                    execute(admin, f"ALTER DATABASE {admin.info.dbname} OWNER TO {owner}")
                owner_dsn = make_dsn(dsn, user=owner)
                with closing(psycopg2.connect(owner_dsn)) as connection, connection:
                    execute(connection, PRODUCT_TABLE + ";" + _POLICIES)
                    execute(connection, _CASES, [DOCTOR])
                yield owner_dsn
        finally:
            execute(server, "DROP ROLE IF EXISTS medmitra_cases")
