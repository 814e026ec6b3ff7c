"""Sees that all servers give the same answer before their speed is compared."""

import http.client
import json
from collections.abc import Iterable, Mapping

from benchmarks.errors import BenchmarkError
from benchmarks.services import Service, path


def compare_answers(services: Mapping[str, Service], sizes: Iterable[int]) -> None:
    """Compare the servers' answers, the order of the keys included.

    Args:
        services: The servers by name.
        sizes: How many cases to ask for; doctor number N has N.

    Raises:
        BenchmarkError: They differ, or have not as many cases as they should.
    """
    for size in sizes:
        answers = {name: _answer(service, size) for name, service in services.items()}
        (first, expected), *others = answers.items()
        ((_, cases),) = expected
        if len(cases) != size:
            raise BenchmarkError(f"{first} answers with {len(cases)} cases, not {size}")
        for name, answer in others:
            if answer != expected:
                raise BenchmarkError(f"{name} answers otherwise than {first} when asked for {size} cases")


def _answer(service: Service, size: int) -> list[tuple[str, list[object]]]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.request("GET", path(size))
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != http.client.OK:
        raise BenchmarkError(f"status {response.status} when asked for {size} cases")
    pairs: list[tuple[str, list[object]]] = json.loads(body, object_pairs_hook=list)
    return pairs
