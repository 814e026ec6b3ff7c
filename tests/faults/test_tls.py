"""``check`` tells whether the link to the database is encrypted, and whether the server is verified."""

import datetime as dt
import ipaddress
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.checks import Verdict, check_link
from medmitra_cases.database import connect
from medmitra_cases.testing.postgres import open_folder
from tests.faults.namespaces import Link
from tests.faults.pgbouncer import pgbouncer
from tests.faults.postgres import Postgres
from tests.support.processes import run

pytestmark = pytest.mark.faults

ENCRYPTED = r"encrypted (TLSv1.3)"
NOT_VERIFIED = "but the server's name is not verified"


def make_certificate(folder: Path, *addresses: str) -> None:
    """Write a key and a certificate that it has signed itself, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "database")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(each)) for each in addresses])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class Database:
    """A PgBouncer that offers TLS, on the loopback address and on one that is not.

    Attributes:
        address: The address that is not.
    """

    def __init__(self, address: str, port: int, folder: Path) -> None:
        self.address = address
        self._port = port
        self._certificate = folder / "server.crt"

    def dsn(self, host: str, sslmode: str, **more: str) -> str:
        if sslmode.startswith("verify"):
            more.setdefault("sslrootcert", str(self._certificate))
        return make_dsn(
            host=host, port=self._port, user="medmitra_cases", dbname="postgres", sslmode=sslmode, **more
        )


@pytest.fixture(scope="module")
def database(_postgres: Postgres) -> Iterator[Database]:
    with Link() as link, open_folder() as folder:
        make_certificate(folder, link.own_address, "127.0.0.1")
        tls = f"client_tls_sslmode = allow\nclient_tls_key_file = {folder}/server.key\n"
        tls += f"client_tls_cert_file = {folder}/server.crt\n"
        with pgbouncer(folder, _postgres.dsn, listen=link.own_address, more=tls) as port:
            yield Database(link.own_address, port, folder)


@pytest.mark.parametrize(
    ("sslmode", "mark", "seen"),
    [
        ("disable", "!", "is not encrypted (sslmode=disable): others could read the cases on the way"),
        ("prefer", "!", f"is {ENCRYPTED}, {NOT_VERIFIED} (sslmode=prefer)"),
        ("require", "!", f"is {ENCRYPTED}, {NOT_VERIFIED} (sslmode=require)"),
        ("verify-ca", "!", f"is {ENCRYPTED}, {NOT_VERIFIED} (sslmode=verify-ca)"),
        ("verify-full", "✓", f"is {ENCRYPTED}, and the server's name is verified"),
    ],
)
def test_a_link_to_another_machine(database: Database, sslmode: str, mark: str, seen: str) -> None:
    lines = run("check", DATABASE_URL=database.dsn(database.address, sslmode)).stdout.splitlines()
    assert lines[0].startswith(f"{mark} the link to the database {seen}")
    assert ("sslmode=verify-full" in lines[1]) == (mark == "!")


@pytest.mark.parametrize(
    ("sslmode", "seen"),
    [
        ("disable", "does not leave this machine (127.0.0.1)"),
        ("require", "does not leave this machine (127.0.0.1)"),
        ("verify-full", f"is {ENCRYPTED}, and the server's name is verified"),
    ],
)
def test_a_link_within_this_machine(database: Database, sslmode: str, seen: str) -> None:
    with closing(connect(database.dsn("127.0.0.1", sslmode))) as connection:
        assert check_link(connection)[:2] == (
            Verdict.GOOD,
            f"the link to the database {seen}",
        )


@pytest.mark.parametrize(
    ("sslrootcert", "reason"),
    [
        ("system", "certificate verify failed"),
        ("/etc/ssl/certs/ca-certificates.crt", "certificate verify failed"),
        ("/no/such/file.crt", 'root certificate file "/no/such/file.crt" does not exist'),
    ],
)
def test_check_says_how_to_verify_the_server(database: Database, sslrootcert: str, reason: str) -> None:
    dsn = database.dsn(database.address, "verify-full", sslrootcert=sslrootcert)
    ended = run("check", DATABASE_URL=dsn)
    line, hint, summary = ended.stdout.splitlines()
    assert line.startswith("✗ the database cannot be verified: connection to server at ")
    assert line.endswith(reason)
    assert hint.startswith("  → set sslrootcert=FILE in DATABASE_URL")
    assert "sslrootcert=system does not work with the wheel psycopg2-binary" in hint
    assert (ended.returncode, summary) == (1, "Not ready to serve: 1 of 1 checks failed (✗).")


def test_check_says_so_if_another_server_does_not_respond(database: Database) -> None:
    parts = parse_dsn(database.dsn(database.address, "verify-full", sslrootcert="system"))
    dsn = make_dsn(**{**parts, "host": f"127.0.0.1,{parts['host']}", "port": f"1,{parts['port']}"})
    first, *_ = run("check", DATABASE_URL=dsn).stdout.splitlines()
    assert first.startswith(
        f'✗ the database cannot be verified: connection to server at "{database.address}"'
    )


def test_the_mode_may_come_from_the_environment(database: Database) -> None:
    dsn = make_dsn(database.dsn(database.address, "require").replace("sslmode=require", "").strip())
    assert "(sslmode=disable)" in run("check", DATABASE_URL=dsn, PGSSLMODE="disable").stdout
