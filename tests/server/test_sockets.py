"""Where the server listens: on a socket handed over as systemd does, or on a port that processes share."""

import os
import re
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from medmitra_cases.errors import ListenError
from medmitra_cases.server.sockets import bound_sockets, inherited_sockets
from medmitra_cases.settings.rules import is_loopback
from tests.support.factories import DOCTOR, CasesDatabase
from tests.support.processes import COMMAND, run, run_program, running, running_on

# The table's layout has no say in any of this.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
REQUEST = f"GET {ASKED} HTTP/1.0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n".encode()
SERVE = (COMMAND, "serve")


def test_processes_share_a_socket_handed_over_and_it_outlives_them(
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


def test_a_process_does_not_wait_on_a_socket_that_another_made_blocking(
    database: CasesDatabase, listening: socket.socket
) -> None:
    with running_on(listening, *SERVE, DATABASE_URL=database.service_dsn) as server:
        listening.setblocking(True)  # for all who have it: so does systemd whenever it starts a process on it
        assert b" 200 OK" in server.send(REQUEST)
        assert server.end(signal.SIGTERM) == 0


def test_a_socket_is_not_handed_on(database: CasesDatabase, listening: socket.socket) -> None:
    with running_on(listening, *SERVE, DATABASE_URL=database.service_dsn) as server:
        flags = Path(f"/proc/{server.process.pid}/fdinfo/3").read_text().partition("flags:")[2].split()[0]
        assert int(flags, 8) & os.O_CLOEXEC
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": "", "PATH": "/bin"}
    assert inherited_sockets(environ) == []
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("count", ["", "x", "-1", "1.5", "٣"])
def test_a_count_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(ListenError, match="LISTEN_FDS is not a number"):
        inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


def test_sockets_of_two_kinds_are_refused(tmp_path: Path) -> None:
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
    assert ended.stderr.startswith("Error: TCP and Unix sockets were handed over to listen on")
    assert ended.stderr.count("\n") == 1


def test_a_host_that_resolves_to_one_address_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    entry = (*entry[:4], ("127.0.0.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry, entry])
    (bound,) = bound_sockets(f"twice:{port}", reuse_port=False)
    bound.close()


def test_one_address_in_use_of_two_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as probe:
        first, second = probe.getsockname(), taken.getsockname()
        probe.close()
        resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (first, second)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
        with pytest.raises(ListenError, match="cannot listen on two:1: Address already in use"):
            bound_sockets("two:1", reuse_port=False)
        socket.create_server(first).close()


def test_what_was_meant_for_another_process_is_left_alone() -> None:
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert inherited_sockets({}) == []


def test_a_descriptor_that_does_not_listen_is_refused_in_one_line() -> None:
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


def test_processes_share_a_port_where_both_ask_for_it(database: CasesDatabase) -> None:
    settings = {"DATABASE_URL": database.service_dsn, "MEDMITRA_REUSE_PORT": "true"}
    with running(*SERVE, MEDMITRA_LISTEN="127.0.0.1:0", **settings) as first:
        settings["MEDMITRA_LISTEN"] = f"127.0.0.1:{first.port}"
        with running(*SERVE, **settings) as second:
            assert first.end(signal.SIGTERM) == 0
            assert b" 200 OK" in second.send(REQUEST)
            settings["MEDMITRA_REUSE_PORT"] = "false"
            ended = run("serve", **settings)
    assert ended.returncode == 1
    assert ended.stderr == f"Error: cannot listen on 127.0.0.1:{first.port}: Address already in use\n"


def test_localhost_is_all_its_addresses() -> None:
    resolved = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with ExitStack() as stack:
        bound = [stack.enter_context(made) for made in bound_sockets("localhost:0", reuse_port=False)]
        assert {made.getsockname()[0] for made in bound} == resolved


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b"])
def test_an_unknown_host_is_named(host: str) -> None:
    with pytest.raises(ListenError, match=f"{re.escape(host)}:1: no such host"):
        bound_sockets(f"{host}:1", reuse_port=False)


@pytest.mark.parametrize(
    ("limits", "descriptors"),
    [("ulimit -S -n 200", range(1_000, 2_000)), ("ulimit -n 130", [130])],
    ids=["may have more", "may not"],
)
def test_clients_never_take_all_descriptors(
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
        # Who has an answer makes room for the next: HTTP/1.0 has it so.
        for client in clients:
            assert b" 200 OK" in client.recv(65_536)
        assert server.end(signal.SIGTERM) == 0
    assert "Too many open files" not in server.printed


WARNING = "anyone who reaches this service can read any doctor's cases"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_without_tokens_other_machines_are_kept_out(listen: str) -> None:
    ended = run("serve", DATABASE_URL="host=127.0.0.1", MEDMITRA_LISTEN=listen)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: other machines could connect, and read any doctor's cases: set ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_a_socket_that_other_machines_reach_is_refused_too() -> None:
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
    ids=["trusted front", "secret", "key URL"],
)
def test_who_has_checked_the_caller_may_listen_anywhere(variables: dict[str, str], warnings: int) -> None:
    with running(*SERVE, DATABASE_URL="host=127.0.0.1", MEDMITRA_LISTEN="0.0.0.0:0", **variables) as server:
        assert server.end(signal.SIGTERM) == 0
    assert server.printed.count(WARNING) == warnings


@pytest.mark.parametrize("listen", ["127.0.0.2:0", "[::1]:0"])
def test_without_tokens_it_warns_once(listen: str) -> None:
    with running(*SERVE, DATABASE_URL="host=127.0.0.1", MEDMITRA_LISTEN=listen) as server:
        assert server.end(signal.SIGTERM) == 0
    assert server.printed.count(WARNING) == 1


@pytest.mark.parametrize(
    ("host", "local"),
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
def test_loopback_addresses(host: str, local: bool) -> None:
    assert is_loopback(host) == local
