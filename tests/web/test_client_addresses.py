"""The client in the audit: the peer, or the address that the proxy on this machine names, in one spelling."""

import http.client
import json
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from medmitra_cases import create_app
from tests.support.factories import DOCTOR, settings
from tests.support.processes import COMMAND, TIMEOUT_SECONDS, Running, running_on
from tests.support.tokens import SECRET

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
CLIENT = "198.51.100.2"


@contextmanager
def serving_on(listener: socket.socket) -> Iterator[Running]:
    """Run a service that needs tokens, so that every request is refused and leaves a line in the audit."""
    variables = {"DATABASE_URL": "postgresql://127.0.0.1:1/nowhere", "MEDMITRA_JWT_SECRET": SECRET}
    with running_on(listener, COMMAND, "serve", **variables) as server:
        yield server


@pytest.fixture(scope="module")
def dual_stack() -> Iterator[Running]:
    """A service on [::], which IPv4 clients reach, too: to the socket they are ::ffff:127.0.0.1."""
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        serving_on(listener) as server,
    ):
        yield server


def audited_client(server: Running, request_id: str, host: str, source: str = "", forwarded: str = "") -> str:
    """Send a request, and return its client in the audit."""
    with closing(
        http.client.HTTPConnection(
            host, server.port, TIMEOUT_SECONDS, source_address=(source, 0) if source else None
        )
    ) as connection:
        fields = {"X-Forwarded-For": forwarded} if forwarded else {}
        connection.request("GET", ASKED, headers={"X-Request-ID": request_id, **fields})
        assert connection.getresponse().status == 401
    line = server.wait_for(rf'.*"request_id":"{request_id}".*')[0]
    return str(json.loads(line)["client"])


NAMED = {
    "an address": (CLIENT, CLIENT),
    "several": (f"203.0.113.7, {CLIENT}", CLIENT),
    "IPv4 in IPv6": (f"::ffff:{CLIENT}", CLIENT),
    "IPv4 in IPv6, in hexadecimal": ("::FFFF:c633:6402", CLIENT),
    "IPv4 in IPv6 with a port": (f"[::ffff:{CLIENT}]:443", CLIENT),
    "a port": (f"{CLIENT}:51234", CLIENT),
    "several with ports": (f"203.0.113.7:1, {CLIENT}:51234", CLIENT),
    "IPv6": ("2001:db8::7", "2001:db8::7"),
    "IPv6 in another spelling": ("2001:0DB8:0:0::7", "2001:db8::7"),
    "IPv6 in brackets": ("[2001:db8::7]", "2001:db8::7"),
    "IPv6 with a port": ("[2001:db8::1]:443", "2001:db8::1"),
    "a scope": ("fe80::1%Zebediah", "127.0.0.1"),
    "a scope and a port": ("[fe80::1%Zebediah]:1", "127.0.0.1"),
    "nonsense": (f"{CLIENT}, Zebediah Quux", "127.0.0.1"),
    "nonsense for a port": (f"{CLIENT}:Quux", "127.0.0.1"),
    "nothing after the comma": (f"{CLIENT}, ", "127.0.0.1"),
    "unknown": ("unknown", "127.0.0.1"),
}


@pytest.mark.parametrize(("forwarded", "client"), NAMED.values(), ids=NAMED)
def test_the_proxy_names_the_client(dual_stack: Running, forwarded: str, client: str) -> None:
    name = re.sub(r"\W", "-", forwarded)
    assert audited_client(dual_stack, f"named-{name}", "127.0.0.1", forwarded=forwarded) == client


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_proxy_on_this_machine_is_trusted_over_ipv6_too(dual_stack: Running, host: str) -> None:
    name = host.replace(":", "-")
    assert audited_client(dual_stack, f"proxy{name}", host, forwarded="203.0.113.7") == "203.0.113.7"
    assert audited_client(dual_stack, f"direct{name}", host) == host


def test_other_peers_name_no_client(dual_stack: Running) -> None:
    # 127.0.0.2 is this machine, too, but not the proxy.
    client = audited_client(dual_stack, "spoofed", "127.0.0.1", source="127.0.0.2", forwarded="203.0.113.7")
    assert client == "127.0.0.2"


def test_a_proxy_over_each_kind_of_socket(listening: socket.socket) -> None:
    with serving_on(listening) as server, closing(server.connect()) as connection:
        connection.sendall(
            f"GET {ASKED} HTTP/1.0\r\nX-Request-ID: by-socket\r\nX-Forwarded-For: {CLIENT}:1\r\n\r\n".encode()
        )
        line = server.wait_for(r'.*"request_id":"by-socket".*')[0]
    assert json.loads(line)["client"] == CLIENT


@pytest.mark.parametrize(
    ("peer", "client"),
    [("::ffff:203.0.113.7", "203.0.113.7"), ("2001:db8::7", "2001:db8::7"), ("203.0.113.7", "203.0.113.7")],
)
def test_another_wsgi_server(caplog: pytest.LogCaptureFixture, peer: str, client: str) -> None:
    app = create_app(settings("postgresql://127.0.0.1:1/nowhere", MEDMITRA_JWT_SECRET=SECRET))
    with caplog.at_level(logging.INFO, "medmitra_cases.audit"):
        logging.getLogger("medmitra_cases.audit").addHandler(caplog.handler)
        try:
            app.test_client().get(ASKED, environ_base={"REMOTE_ADDR": peer})
        finally:
            logging.getLogger("medmitra_cases.audit").removeHandler(caplog.handler)
    assert {
        json.loads(record.getMessage())["client"]
        for record in caplog.records
        if "client" in record.getMessage()
    } == {client}
