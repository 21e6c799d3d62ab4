# SPDX-License-Identifier: Apache-2.0
"""Events: what they say, that they are few, and that they are in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kubeproxy_ebpf.kubernetes import report
from kubeproxy_ebpf.kubernetes.api_client import ApiClient
from kubeproxy_ebpf.kubernetes.login import Login
from kubeproxy_ebpf.kubernetes.report import Reporter
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.source import ObjectKey, Occurrence
from tests.api_answers import refusing
from tests.api_server import ApiServer
from tests.unit.kubernetes.following import PATIENCE

PATH = "/apis/events.k8s.io/v1/namespaces/shop/events"
FAILURE = Occurrence(
    ObjectKey("Service", ObjectName("shop", "web")), "ServiceNotServed", "map slots is full", "SyncService", uid="1-2"
)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Return a server."""
    with ApiServer() as server:
        yield server


def report_to(
    server: ApiServer, folder: Path, occurrences: list[Occurrence], until: Callable[[Reporter], bool]
) -> None:
    """Report some occurrences, and wait."""

    async def run() -> None:
        client = ApiClient(Login(server.kubeconfig(folder), ()))
        reporter = Reporter(client, "this-node")
        task = asyncio.create_task(reporter.run())
        for occurrence in occurrences:
            reporter.add(occurrence)
        async with asyncio.timeout(PATIENCE):
            while not until(reporter):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.005)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()

    asyncio.run(run())


def written(server: ApiServer) -> list[Any]:
    """Return the bodies of the requests that write."""
    return [seen.body for seen in server.seen if seen.method in {"POST", "PATCH"}]


def test_an_event_says_all(server: ApiServer, tmp_path: Path) -> None:
    """It has what the API demands of an event, and what people look for."""
    report_to(server, tmp_path, [FAILURE], lambda _: bool(server.seen))
    (body,) = written(server)
    assert server.seen[0].path == PATH
    assert body.pop("eventTime").endswith("Z")
    assert body["metadata"].pop("name").startswith("web.")
    assert body == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "shop"},
        "type": "Warning",
        "reason": "ServiceNotServed",
        "action": "SyncService",
        "note": "map slots is full",
        "reportingController": "kubeproxy-ebpf",
        "reportingInstance": "kubeproxy-ebpf-this-node",
        "regarding": {"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web", "uid": "1-2"},
    }


def test_events_on_nodes_are_in_the_default_namespace(server: ApiServer, tmp_path: Path) -> None:
    """As for all objects without a namespace."""
    node = ObjectKey("Node", ObjectName("", "this-node"))
    started = Occurrence(node, "Starting", "", "StartKubeProxy", is_warning=False, uid="this-node")
    report_to(server, tmp_path, [started], lambda _: bool(server.seen))
    (body,) = written(server)
    assert server.seen[0].path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert (body["type"], body["metadata"]["namespace"]) == ("Normal", "default")
    assert body["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "this-node", "uid": "this-node"}


def test_repetitions_are_counted(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that repeats what was written a while ago adds to it; one that repeats what is about to be is dropped."""
    again: list[int] = []

    def repeat(reporter: Reporter) -> bool:
        if len(written(server)) == 1 and not again and not reporter._waiting and _settled(reporter):
            reporter.add(FAILURE)  # a moment ago
            monkeypatch.setattr(report, "SERIES_SECONDS", 0.0)
            again.append(1)
            reporter.add(FAILURE)
        return len(written(server)) == 2

    report_to(server, tmp_path, [FAILURE, FAILURE, FAILURE], repeat)
    first, second = (seen for seen in server.seen if seen.method != "GET")
    assert (first.method, second.method) == ("POST", "PATCH")
    assert second.path == f"{PATH}/{first.body['metadata']['name']}"
    assert second.headers["Content-Type"] == "application/merge-patch+json"
    assert second.body["series"]["count"] == 5


def _settled(reporter: Reporter) -> bool:
    return not any(event.is_waiting for event in reporter._known.values())


def test_a_repetition_of_what_expired_is_an_event_of_its_own(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server keeps events for an hour; what cannot be added to is written anew."""
    monkeypatch.setattr(report, "SERIES_SECONDS", 0.0)

    def repeat(reporter: Reporter) -> bool:
        if len(written(server)) == 1 and _settled(reporter):
            server.faults[f"{PATH}/{written(server)[0]['metadata']['name']}"] = [refusing(404)]
            reporter.add(FAILURE)
        return len(written(server)) == 3

    report_to(server, tmp_path, [FAILURE], repeat)
    writing = [seen for seen in server.seen if seen.method != "GET"]
    assert [seen.method for seen in writing] == ["POST", "PATCH", "POST"]
    assert writing[0].body["metadata"]["name"] != writing[2].body["metadata"]["name"]


def test_what_was_dropped_is_news_again(server: ApiServer, tmp_path: Path) -> None:
    """An event that had to make room for newer ones is written if its reason comes up once more."""
    many = [FAILURE._replace(note=f"problem {number}") for number in range(2 * report.MOST_WAITING)]

    def again(reporter: Reporter) -> bool:
        if len(written(server)) < report.BURST:
            return False
        reporter.add(many[0])
        return any(event.occurrence == many[0] for event in reporter._waiting)

    report_to(server, tmp_path, many, again)


def test_a_flood_is_a_trickle(server: ApiServer, tmp_path: Path) -> None:
    """Of very many only some are written at once, and only some wait."""
    many = [FAILURE._replace(note=f"problem {number}") for number in range(1000)]
    report_to(server, tmp_path, many, lambda _: len(written(server)) == report.BURST)
    assert len(written(server)) == report.BURST


def test_a_server_that_is_away_gets_them_later(server: ApiServer, tmp_path: Path) -> None:
    """What could not be written is tried again."""
    server.faults[PATH] = [refusing(503), refusing(429), refusing(401)]
    report_to(server, tmp_path, [FAILURE], lambda _: len(written(server)) == 4)
    assert len({body["metadata"]["name"] for body in written(server)}) == 1


def test_one_that_is_refused_holds_up_no_other(server: ApiServer, tmp_path: Path) -> None:
    """A server that finds fault with one event finds the same fault again."""
    server.faults[PATH] = [refusing(422)]
    report_to(server, tmp_path, [FAILURE, FAILURE._replace(note="another")], lambda _: len(written(server)) == 2)
    assert [body["note"] for body in written(server)] == ["map slots is full", "another"]


def test_who_may_not_write_events_does_not_try(server: ApiServer, tmp_path: Path) -> None:
    """One refusal is enough."""
    server.faults[PATH] = [refusing(403)]

    def refused(reporter: Reporter) -> bool:
        reporter.add(FAILURE._replace(note="another"))
        return reporter._is_refused

    report_to(server, tmp_path, [FAILURE], refused)
    assert len(written(server)) == 1
