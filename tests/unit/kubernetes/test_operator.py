# SPDX-License-Identifier: Apache-2.0
"""What of kopf's behaviour this project leans on: if a new version behaves otherwise, it shows here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import kopf
import pytest

from kubeproxy_ebpf.kubernetes import operator
from kubeproxy_ebpf.kubernetes.api_client import ApiClient
from kubeproxy_ebpf.kubernetes.login import Login
from kubeproxy_ebpf.kubernetes.source import ApiServerSource
from kubeproxy_ebpf.model.objects import Node
from tests import raw_objects
from tests.api_answers import Fault, event, refusing, saying, status
from tests.api_server import NODES, ApiServer
from tests.unit.kubernetes.following import wait_until
from tests.unit.kubernetes.test_kubeconfig import plugin, write

ZONE = "topology.kubernetes.io/zone"


def node(zone: str) -> dict[str, object]:
    """Return this node in a zone, with a finalizer that a careless kopf would take off."""
    raw = raw_objects.changed(raw_objects.NODE, "metadata.labels", {ZONE: zone})
    return raw_objects.changed(raw, "metadata.finalizers", ["kopf.zalando.org/KopfFinalizerMarker"])


@pytest.fixture
def streams_lists() -> bool:
    """Return whether the server does."""
    return True


@pytest.fixture
def server(*, streams_lists: bool) -> Iterator[ApiServer]:
    """Return a server with this node's Node."""
    with ApiServer(streams_lists=streams_lists) as server:
        server.put(NODES, node("a"), "node")
        yield server


@pytest.fixture
def source(server: ApiServer, tmp_path: Path) -> Iterator[ApiServerSource]:
    """Return a source that runs the operator."""
    source = ApiServerSource(
        kubeconfig=server.kubeconfig(tmp_path, token="t"), api_servers=(), node_name="this-node", needs_pod_cidrs=True
    )
    yield source
    source.close()


def wait_for_zone(source: ApiServerSource, zone: str) -> None:
    """Return when the Node is in a zone."""

    def is_there() -> bool:
        return any(isinstance(update.newest, Node) and update.newest.zone == zone for update in source.drain())

    wait_until(is_there, f"the Node in zone {zone}")


def test_the_node_comes_and_nothing_is_written(server: ApiServer, source: ApiServerSource) -> None:
    """Only reads, and only of this Node; the one thing that is written is an event."""
    wait_for_zone(source, "a")
    server.put(NODES, node("b"), "node")
    wait_for_zone(source, "b")
    assert {(seen.method, seen.path) for seen in server.seen if seen.method != "GET"} == {
        ("POST", "/apis/events.k8s.io/v1/namespaces/default/events")
    }
    assert {seen.query["fieldSelector"] for seen in server.requests(NODES)} == {"metadata.name=this-node"}


def test_it_takes_one_request(server: ApiServer, source: ApiServerSource) -> None:
    """Neither discovery nor a list is asked for: the watch begins with all there is."""
    wait_for_zone(source, "a")
    paths = [seen.path for seen in server.seen]
    assert paths.count(NODES) == 1
    assert not {"/api", "/apis", "/api/v1", "/version"} & set(paths)


@pytest.mark.parametrize("streams_lists", [False])
def test_a_server_that_streams_no_lists_is_asked_for_one(server: ApiServer, source: ApiServerSource) -> None:
    """As those before 1.34; it refuses once."""
    wait_for_zone(source, "a")
    server.put(NODES, node("b"), "node")
    wait_for_zone(source, "b")
    asked = [seen.query for seen in server.requests(NODES)]
    assert ["sendInitialEvents" in query for query in asked] == [True, False, False]


FATAL: dict[str, Fault] = {
    "500 in the stream": saying(event("ERROR", status(500, "etcdserver: leader changed"))),
    "410 in the stream": saying(event("ERROR", status(410, "Expired"))),
    "HTTP 410": refusing(410),
    "HTTP 401": refusing(401),
    "HTTP 403": refusing(403),
    "HTTP 503": refusing(503),
    "no JSON": saying(b"<html>\n"),
    "no object": saying(b'{"type": "MODIFIED"}\n'),
}


@pytest.mark.parametrize("fault", FATAL.values(), ids=FATAL.keys())
def test_the_node_comes_whatever_ends_the_operator(server: ApiServer, source: ApiServerSource, fault: Fault) -> None:
    """Some of these end kopf's operator; another one takes its place."""
    wait_for_zone(source, "a")
    wait_until(lambda: server.watches(NODES), "the watch")
    server.faults[NODES] = [fault, fault]
    server.break_watches(NODES)
    wait_until(lambda: not server.faults[NODES], "the faults to be over")
    server.put(NODES, node("c"), "node")
    wait_for_zone(source, "c")


def test_the_server_goes_and_comes_back(server: ApiServer, source: ApiServerSource) -> None:
    """The operator asks again, and again."""
    wait_for_zone(source, "a")
    server.stop()
    server.put(NODES, node("b"), "node")
    server.start()
    wait_for_zone(source, "b")


def test_a_deleted_node_keeps_its_last_state(server: ApiServer, source: ApiServerSource) -> None:
    """Nothing is said about it until it is there again, as another one."""
    wait_for_zone(source, "a")
    server.delete(NODES, "node")
    server.put(NODES, node("b"), "node-again")
    wait_for_zone(source, "b")


def test_a_refused_login_is_renewed(tmp_path: Path) -> None:
    """Kopf closes a session that the server refuses and asks for another; one that we close needs no renewal."""

    async def log_in_thrice() -> list[str]:
        client = ApiClient(Login(write(tmp_path, user=plugin(tmp_path, {"token": "t"})), ()))
        logins = operator._Logins(client)
        runs: list[str] = []
        for is_ours in (False, False, True):
            if is_ours:
                logins._close()
            session = (await logins.log_in()).aiohttp_session
            runs.append((tmp_path / "runs").read_text())
            client._login._renewed_at = 0.0
            await session.close()
        return runs

    assert asyncio.run(log_in_thrice()) == [".\n", ".\n.\n", ".\n.\n"]


def test_an_ended_operator_kills_nobody() -> None:
    """Kopf would send itself SIGKILL ten minutes after an operator ended; in a process that goes on, that is ours."""
    assert operator._settings("n").process.ultimate_exiting_timeout is None


def test_an_operator_leaves_older_tasks_alone() -> None:
    """When it ends, it cancels the tasks that are younger than itself. In a thread it takes no signals."""

    async def run() -> tuple[bool, bool]:
        older = asyncio.create_task(asyncio.sleep(3600))
        stop = asyncio.Event()
        registry = kopf.OperatorRegistry()
        task = asyncio.create_task(
            kopf.operator(registry=registry, settings=operator._settings("n"), clusterwide=True, stop_flag=stop)
        )
        await asyncio.sleep(0)
        younger = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        states = (older.done(), younger.done())
        older.cancel()
        return states

    results: list[tuple[bool, bool]] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(run())))
    thread.start()
    thread.join()
    assert results == [(False, True)]


def test_client_libraries_are_not_imported() -> None:
    """Kopf would import them to recognise their objects, which is most of what importing it costs."""
    code = "import sys, kubeproxy_ebpf.kubernetes.operator; print('kubernetes' in sys.modules, 'kopf' in sys.modules)"
    result = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert result.stdout == "False True\n"
