"""Listening sockets: inherited as from systemd, on a shared port, or on loopback only (without tokens)."""

import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from medmitra_cases.errors import ListenError
from medmitra_cases.server.sockets import bound_sockets, inherited_sockets
from medmitra_cases.settings.rules import is_loopback
from tests.support.factories import DOCTOR, CasesDatabase
from tests.support.paths import ROOT
from tests.support.processes import COMMAND, run, run_program, running, running_on

# These tests do not depend on the table layout.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"
REQUEST = f"GET {CASES_URL} HTTP/1.0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n".encode()
SERVE = (COMMAND, "serve")


def test_processes_share_an_inherited_socket_that_outlives_them(
    database: CasesDatabase, listening: socket.socket
) -> None:
    settings = {"DATABASE_URL": database.service_dsn, "MEDMITRA_LISTEN": "127.0.0.1:1"}
    with running_on(listening, *SERVE, **settings) as first:
        with running_on(listening, *SERVE, **settings) as second:
            assert b" 200 OK" in second.send(REQUEST)
            assert first.end(signal.SIGTERM) == 0
            assert b" 200 OK" in second.send(REQUEST)
            assert second.end(signal.SIGTERM) == 0
        with running_on(listening, *SERVE, **settings) as third:
            assert b" 200 OK" in third.send(REQUEST)


def test_the_service_in_a_container_takes_its_unix_socket_again_after_a_crash(
    database: CasesDatabase, tmp_path: Path
) -> None:
    command = (sys.executable, ROOT / "deploy" / "compose" / "listen.py", tmp_path / "http.sock")
    settings = {"DATABASE_URL": database.service_dsn, "PATH": str(COMMAND.parent)}
    with running(*command, **settings) as crashed:
        assert b" 200 OK" in crashed.send(REQUEST)
        crashed.end(signal.SIGKILL)
    with running(*command, **settings) as restarted:
        assert (tmp_path / "http.sock").stat().st_mode & 0o777 == 0o666  # for nginx, which is another user
        assert b" 200 OK" in restarted.send(REQUEST)
        assert restarted.end(signal.SIGTERM) == 0


def test_a_process_does_not_block_on_a_socket_that_another_made_blocking(
    database: CasesDatabase, listening: socket.socket
) -> None:
    with running_on(listening, *SERVE, DATABASE_URL=database.service_dsn) as server:
        # This applies to all processes that share the socket. Systemd does it whenever it starts a process.
        listening.setblocking(True)
        assert b" 200 OK" in server.send(REQUEST)
        assert server.end(signal.SIGTERM) == 0


def test_a_process_does_not_pass_its_socket_to_children(
    database: CasesDatabase, listening: socket.socket
) -> None:
    with running_on(listening, *SERVE, DATABASE_URL=database.service_dsn) as server:
        flags = Path(f"/proc/{server.process.pid}/fdinfo/3").read_text().partition("flags:")[2].split()[0]
        assert int(flags, 8) & os.O_CLOEXEC
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": "", "PATH": "/bin"}
    assert inherited_sockets(environ) == []
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("count", ["", "x", "-1", "1.5", "٣"])
def test_an_invalid_count_of_sockets_is_refused(count: str) -> None:
    with pytest.raises(ListenError, match="LISTEN_FDS is not a number"):
        inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


def test_a_mix_of_tcp_and_unix_sockets_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "cases.sock"))
        unix.listen()
        command = [
            *("bash", "-c"),
            f'exec 3<&{tcp.fileno()} 4<&{unix.fileno()}; LISTEN_PID=$$ LISTEN_FDS=2 exec "{COMMAND}" serve',
        ]
        ended = run_program(
            command, {"DATABASE_URL": "host=127.0.0.1"}, pass_fds=(tcp.fileno(), unix.fileno())
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: TCP and Unix sockets were inherited to listen on")
    assert ended.stderr.count("\n") == 1


def test_an_address_that_a_host_has_twice_is_bound_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    entry = (*entry[:4], ("127.0.0.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry, entry])
    (bound,) = bound_sockets(f"twice:{port}", reuse_port=False)
    bound.close()


def test_no_address_stays_bound_if_another_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as in_use, socket.create_server(("127.0.0.1", 0)) as probe:
        first, second = probe.getsockname(), in_use.getsockname()
        probe.close()
        resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (first, second)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
        with pytest.raises(ListenError, match="cannot listen on two:1: Address already in use"):
            bound_sockets("two:1", reuse_port=False)
        socket.create_server(first).close()


def test_sockets_for_another_process_are_ignored() -> None:
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert inherited_sockets({}) == []


def test_a_descriptor_that_is_no_socket_is_refused_in_one_line() -> None:
    command = ["sh", "-c", f'exec 3</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "{COMMAND}" serve']
    with pytest.raises(AssertionError) as raised, running(*command, DATABASE_URL="host=127.0.0.1"):
        pass
    assert str(raised.value).endswith("Error: descriptor 3, to listen on: Socket operation on non-socket\n")


def test_a_socket_that_does_not_listen_is_refused() -> None:
    with (
        socket.socket() as silent,
        pytest.raises(AssertionError) as raised,
        running_on(silent, *SERVE, DATABASE_URL="host=127.0.0.1"),
    ):
        pass
    assert str(raised.value).endswith("Error: descriptor 3, to listen on, is no listening stream socket\n")


def test_processes_share_a_port_if_both_set_reuse_port(database: CasesDatabase) -> None:
    settings = {"DATABASE_URL": database.service_dsn, "MEDMITRA_REUSE_PORT": "true"}
    with running(*SERVE, MEDMITRA_LISTEN="127.0.0.1:0", **settings) as first:
        settings["MEDMITRA_LISTEN"] = f"127.0.0.1:{first.port}"
        with running(*SERVE, **settings) as second:
            assert first.end(signal.SIGTERM) == 0
            assert b" 200 OK" in second.send(REQUEST)
            settings["MEDMITRA_REUSE_PORT"] = "false"
            ended = run("serve", **settings)
    assert ended.returncode == 1
    assert f"Error: cannot listen on 127.0.0.1:{first.port}: Address already in use (" in ended.stderr


def test_localhost_binds_all_its_addresses() -> None:
    resolved = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with ExitStack() as stack:
        bound = [stack.enter_context(made) for made in bound_sockets("localhost:0", reuse_port=False)]
        assert {made.getsockname()[0] for made in bound} == resolved


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b"])
def test_the_error_names_an_unknown_host(host: str) -> None:
    with pytest.raises(ListenError, match=f"{re.escape(host)}:1: no such host"):
        bound_sockets(f"{host}:1", reuse_port=False)


@pytest.mark.parametrize(
    ("limits", "descriptors"),
    [("ulimit -S -n 200", range(1_000, 2_000)), ("ulimit -n 130", [130])],
    ids=["soft limit", "hard limit"],
)
def test_clients_never_use_all_descriptors(
    database: CasesDatabase, limits: str, descriptors: Sequence[int]
) -> None:
    command = ("sh", "-c", f'{limits}; exec "$@"', "sh", *SERVE, "--listen", "127.0.0.1:0")
    settings = {"DATABASE_URL": database.service_dsn, "MEDMITRA_THREADS": "1"}
    with running(*command, **settings) as server, ExitStack() as stack:
        process = Path(f"/proc/{server.process.pid}")
        (limit,) = re.findall(r"^Max open files +(\d+) ", (process / "limits").read_text(), re.MULTILINE)
        assert int(limit) in descriptors
        clients = [stack.enter_context(server.connect()) for _ in range(60)]
        for client in clients:
            client.sendall(REQUEST)
        # HTTP/1.0 closes a connection after its response, which makes room for the next client.
        for client in clients:
            assert b" 200 OK" in client.recv(65_536)
        assert server.end(signal.SIGTERM) == 0
    assert "Too many open files" not in server.printed


WARNING = "every client that reaches this service can read the cases of any doctor"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_a_public_address_is_refused_without_tokens(listen: str) -> None:
    ended = run("serve", DATABASE_URL="host=127.0.0.1", MEDMITRA_LISTEN=listen)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: other machines could connect, and read any doctor's cases: set ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_an_inherited_public_socket_is_refused_without_tokens() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as listening,
        pytest.raises(AssertionError, match="other machines could connect"),
        running_on(listening, *SERVE, DATABASE_URL="host=127.0.0.1"),
    ):
        pass


@pytest.mark.parametrize(
    ("variables", "warnings"),
    [
        ({"MEDMITRA_TRUST_USER_ID": "1"}, 1),
        ({"MEDMITRA_JWT_SECRET": "test-secret-of-thirty-two-bytes-or-more"}, 0),
        ({"MEDMITRA_JWKS_URL": "https://keys.example/keys"}, 0),
    ],
    ids=["trusted proxy", "secret", "JWKS URL"],
)
def test_any_address_is_allowed_with_tokens_or_a_trusted_proxy(
    variables: dict[str, str], warnings: int
) -> None:
    with running(*SERVE, DATABASE_URL="host=127.0.0.1", MEDMITRA_LISTEN="0.0.0.0:0", **variables) as server:
        assert server.end(signal.SIGTERM) == 0
    assert server.printed.count(WARNING) == warnings


@pytest.mark.parametrize("listen", ["127.0.0.2:0", "[::1]:0"])
def test_a_loopback_address_without_tokens_causes_one_warning(listen: str) -> None:
    with running(*SERVE, DATABASE_URL="host=127.0.0.1", MEDMITRA_LISTEN=listen) as server:
        assert server.end(signal.SIGTERM) == 0
    assert server.printed.count(WARNING) == 1


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("localhost", True),
        ("localhost.example", False),
    ],
)
def test_is_loopback_recognizes_loopback_addresses(host: str, is_local: bool) -> None:
    assert is_loopback(host) == is_local
