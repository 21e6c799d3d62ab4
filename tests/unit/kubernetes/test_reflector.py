# SPDX-License-Identifier: Apache-2.0
"""Whatever a server does, in the end the reflector knows what one that starts then knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeproxy_ebpf.kubernetes import reflector, retry
from kubeproxy_ebpf.kubernetes.kinds import ENDPOINT_SLICES, SERVICE_CIDRS, SERVICES
from kubeproxy_ebpf.model.objects import EndpointSlice, ObjectName, Service
from tests import api_server, raw_objects
from tests.api_server import ApiServer, Fault, bookmark, event, refusing, saying, silent, status
from tests.unit.kubernetes.following import Following, State, wait_until

COUNT = 7
CHUNK = 3
SILENCE = 0.3
"""Seconds."""


def service(name: str, port: int = 80) -> dict[str, Any]:
    """Return a Service."""
    raw = raw_objects.changed(raw_objects.SERVICE, "metadata.name", name)
    return raw_objects.changed(raw, "spec.ports", [{"name": "http", "port": port}])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Return a server with some Services, whose lists come in small parts; it is not spared when it is unwell."""
    monkeypatch.setattr(reflector, "CHUNK", CHUNK)
    for name in ("FIRST_DELAY", "LONGEST_DELAY_UNREACHABLE", "LONGEST_DELAY_ANSWERED"):
        monkeypatch.setattr(retry, name, 0.02)
    with ApiServer() as server:
        for number in range(COUNT):
            server.put(api_server.SERVICES, service(f"s{number}"), f"uid-{number}")
        yield server


@pytest.fixture
def following(server: ApiServer, tmp_path: Path) -> Following:
    """Return a reflector of Services that is about to begin."""
    return Following(server.kubeconfig(tmp_path), SERVICES, SILENCE)


def cold_start(server: ApiServer, folder: Path) -> State:
    """Return what a reflector that starts now comes to know."""
    with Following(server.kubeconfig(folder), SERVICES) as fresh:
        wait_until(lambda: fresh.is_listed, "a fresh list")
        return fresh.state


def churn(server: ApiServer) -> None:
    """Add, change, delete, and recreate under the same name."""
    path = api_server.SERVICES
    server.put(path, service("new"), "uid-new")
    server.put(path, service("s1", 81), "uid-1")
    server.delete(path, "uid-2")
    server.delete(path, "uid-3")
    server.put(path, service("s3", 83), "uid-3-again")


def port_of(state: State, name: str) -> int:
    """Return the port of a Service, 0 if there is none."""
    found = state.get(ObjectName("shop", name))
    return found.ports[0].port if isinstance(found, Service) else 0


FAULTS: dict[str, Fault] = {
    "HTTP 410": refusing(410, "Expired"),
    "HTTP 400": refusing(400, "invalid resource version"),
    "HTTP 401": refusing(401),
    "HTTP 403": refusing(403),
    "HTTP 429": refusing(429, headers={"Retry-After": "0.2"}),
    "HTTP 500": refusing(500),
    "HTTP 503": refusing(503),
    "HTTP 504, version from the future": refusing(504, "Too large resource version: 999, current: 1"),
    "410 in the stream": saying(event("ERROR", status(410, "Expired"))),
    "500 in the stream": saying(event("ERROR", status(500, "etcdserver: leader changed"))),
    "429 in the stream": saying(event("ERROR", status(429, "slow down") | {"details": {"retryAfterSeconds": 1}})),
    "an error that is none": saying(event("ERROR", {"kind": "Pod"})),
    "truncated JSON": saying(event("MODIFIED", service("s1"))[:-30]),
    "no JSON": saying(b"<html>try later</html>\n"),
    "no event": saying(b'["ADDED"]\n', b"7\n", b"\n"),
    "unknown type": saying(event("RENAMED", service("s1"))),
    "wrong kind": saying(event("ADDED", raw_objects.changed(service("s1"), "kind", "Pod"))),
    "no metadata": saying(event("ADDED", {"kind": "Service"})),
    "no version": saying(event("ADDED", service("s1"))),
    "nothing": saying(),
    "silence": silent(),
}


@pytest.mark.parametrize(
    ("streams_lists", "compacted"),
    [(True, False), (True, True), (False, True)],
    ids=["history", "compacted, streaming list", "compacted, list in parts"],
)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_watch_survives(
    server: ApiServer, following: Following, tmp_path: Path, fault: Fault, *, compacted: bool, streams_lists: bool
) -> None:
    """A watch is broken, what follows it goes wrong twice, and meanwhile objects come, change and go."""
    server.streams_lists = streams_lists
    with following:
        wait_until(lambda: following.is_listed and server.watches(api_server.SERVICES), "the first list")
        server.faults[api_server.SERVICES] = [fault, fault]
        server.break_watches(api_server.SERVICES)
        churn(server)
        if compacted:
            server.compact()
        wait_until(lambda: not server.faults[api_server.SERVICES], "the faults to be over")
        expected = cold_start(server, tmp_path)
        wait_until(lambda: following.state == expected, "what a cold start knows")
        server.put(api_server.SERVICES, service("s1", 84), "uid-1")
        wait_until(lambda: port_of(following.state, "s1") == 84, "a change after that")


@pytest.mark.parametrize("streams_lists", [True, False], ids=["streaming list", "list in parts"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_first_list_survives(
    server: ApiServer, following: Following, tmp_path: Path, fault: Fault, *, streams_lists: bool
) -> None:
    """What goes wrong at first is tried again; nothing counts as listed before it is."""
    server.streams_lists = streams_lists
    server.faults[api_server.SERVICES] = [fault, fault]
    with following:
        wait_until(lambda: following.is_listed, "the list")
        assert following.state == cold_start(server, tmp_path)
        assert len(following.state) == COUNT


PARTS: dict[str, Fault] = {
    "HTTP 410": refusing(410, "the provided continue parameter is too old"),
    "HTTP 503": refusing(503),
    "HTTP 429": refusing(429, headers={"Retry-After": "soon"}),
    "no JSON": saying(b'{"kind": "ServiceList", "items": ['),
    "wrong kind": saying(json.dumps({"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": []}).encode()),
    "no version": saying(json.dumps({"kind": "ServiceList", "metadata": {}, "items": []}).encode()),
    "no list": saying(b'{"kind": "ServiceList", "metadata": {"resourceVersion": "1"}, "items": 7}'),
    "an item without a name": saying(
        b'{"kind": "ServiceList", "metadata": {"resourceVersion": "1"}, "items": [{"metadata": {}}]}'
    ),
}


@pytest.mark.parametrize("fault", PARTS.values(), ids=PARTS.keys())
def test_a_list_in_parts_survives(server: ApiServer, following: Following, tmp_path: Path, fault: Fault) -> None:
    """The second part goes wrong after an object of the first is gone: the list begins anew, and it is not in it."""
    server.streams_lists = False

    async def first_part(request: Any) -> Any:
        assert request.query["limit"] == str(CHUNK)
        return server._list(request)

    refused = refusing(422, "sendInitialEvents: Forbidden")
    server.faults[api_server.SERVICES] = [refused, first_part, fault]
    with following:
        wait_until(lambda: following.batches, "the first part")
        assert not following.is_listed
        server.delete(api_server.SERVICES, "uid-0")
        wait_until(lambda: following.is_listed, "the list")
        wait_until(lambda: len(following.state) == COUNT - 1, "all but the one that is gone")
        assert following.state == cold_start(server, tmp_path)


def test_selectors_are_the_servers_work(server: ApiServer, following: Following, tmp_path: Path) -> None:
    """What is another proxy's or headless is not even sent."""
    with following:
        wait_until(lambda: following.is_listed, "the list")
    with Following(server.kubeconfig(tmp_path), ENDPOINT_SLICES) as slices:
        wait_until(lambda: slices.is_listed, "the list")
    services, endpoint_slices = (server.requests(path)[0].query for path in (api_server.SERVICES, api_server.SLICES))
    assert services["labelSelector"] == "!service.kubernetes.io/service-proxy-name"
    assert services["fieldSelector"] == "spec.clusterIP!=None"
    assert endpoint_slices["labelSelector"] == (
        "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
    )
    assert "fieldSelector" not in endpoint_slices


def test_an_old_server_is_asked_for_less(server: ApiServer, following: Following) -> None:
    """Neither the field selector nor streaming lists are known to it: one refusal each, at once."""
    server.knows_field_selector = server.streams_lists = False
    with following:
        wait_until(lambda: server.watches(api_server.SERVICES), "the watch")
    queries = [seen.query for seen in server.requests(api_server.SERVICES)]
    assert ["fieldSelector" in query for query in queries[:3]] == [True, False, False]
    assert ["sendInitialEvents" in query for query in queries[:3]] == [True, True, False]
    assert [query.get("limit") for query in queries[2:]] == ["3", "3", "3", None]


def test_an_idle_watch_goes_on_where_it_was(server: ApiServer, tmp_path: Path) -> None:
    """A bookmark moves the version, so that a watch that breaks later need not list again."""
    with Following(server.kubeconfig(tmp_path), SERVICES) as following:
        wait_until(lambda: server.watches(api_server.SERVICES), "the watch")
        server.version += 50
        server.send(api_server.SERVICES, bookmark(api_server.SERVICES, server.version))
        server.compact()
        server.put(api_server.SERVICES, service("s1", 81), "uid-1")
        wait_until(lambda: port_of(following.state, "s1") == 81, "a change after the bookmark")
        server.break_watches(api_server.SERVICES)
        wait_until(lambda: server.watches(api_server.SERVICES), "the next watch")
    first, second = (seen.query for seen in server.requests(api_server.SERVICES))
    assert "sendInitialEvents" in first
    assert second["resourceVersion"] == str(server.version)
    assert "sendInitialEvents" not in second


def test_a_thousand_vanish_while_nobody_answers(server: ApiServer, following: Following, tmp_path: Path) -> None:
    """They are gone from what is known, too, and nothing else is."""
    for number in range(1000):
        server.put(api_server.SERVICES, service(f"v{number}"), f"uid-v{number}")
    with following:
        wait_until(lambda: following.is_listed, "the list")
        assert len(following.state) == COUNT + 1000
        server.stop()
        for number in range(1000):
            server.delete(api_server.SERVICES, f"uid-v{number}")
        server.compact()
        server.start()
        wait_until(lambda: len(following.state) == COUNT, "what is left")
        assert following.state == cold_start(server, tmp_path)


def test_an_event_may_be_large(server: ApiServer, tmp_path: Path) -> None:
    """Some megabytes in one line are an event like any other."""
    endpoints = [{"addresses": [f"10.{n >> 8 & 255}.{n & 255}.1"], "nodeName": "n" * 200} for n in range(9_999)]
    with Following(server.kubeconfig(tmp_path), ENDPOINT_SLICES) as following:
        wait_until(lambda: server.watches(api_server.SLICES), "the watch")
        raw = raw_objects.changed(raw_objects.SLICE, "endpoints", endpoints)
        server.put(api_server.SLICES, raw, "large")
        wait_until(lambda: following.state, "the large slice")
    (found,) = following.state.values()
    assert isinstance(found, EndpointSlice)
    assert len(found.endpoints) == len(endpoints)


def test_a_malformed_object_keeps_its_last_good_state(server: ApiServer, following: Following) -> None:
    """It is counted as refused for as long as it is malformed, and goes when it is deleted."""
    with following:
        wait_until(lambda: server.watches(api_server.SERVICES), "the watch")
        server.put(api_server.SERVICES, raw_objects.changed(service("s1", 81), "spec.ports", 7), "uid-1")
        wait_until(lambda: following.batches[-1].refused == 1, "the refusal")
        assert port_of(following.state, "s1") == 80
        server.put(api_server.SERVICES, service("s1", 82), "uid-1")
        wait_until(lambda: port_of(following.state, "s1") == 82, "the object that was mended")
        assert following.batches[-1].refused == 0
        server.put(api_server.SERVICES, raw_objects.changed(service("s2"), "spec.ports", 7), "uid-2")
        wait_until(lambda: following.batches[-1].refused == 1, "another refusal")
        server.delete(api_server.SERVICES, "uid-2")
        wait_until(lambda: not port_of(following.state, "s2"), "the object to be gone")
        assert following.batches[-1].refused == 0


@pytest.mark.parametrize("code", [403, 404])
def test_a_kind_that_is_not_served_counts_as_none(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It is looked for again, and found when it is there."""
    monkeypatch.setattr(reflector, "FIRST_LOOK", 0.05)
    server.faults[api_server.CIDRS] = [refusing(code)] * 3
    with Following(server.kubeconfig(tmp_path), SERVICE_CIDRS) as following:
        wait_until(lambda: following.is_listed, "a list of none")
        server.put(api_server.CIDRS, raw_objects.SERVICE_CIDR, "cidr")
        wait_until(lambda: following.state, "the ServiceCIDR")


def test_endless_silence_leads_to_a_list(server: ApiServer, following: Following) -> None:
    """A server that has nothing to say about a version may not know it: after two such watches it is asked for all."""
    with following:
        wait_until(lambda: server.watches(api_server.SERVICES), "the watch")
        server.faults[api_server.SERVICES] = [silent(), silent(), silent()]
        server.break_watches(api_server.SERVICES)
        wait_until(lambda: not server.faults[api_server.SERVICES], "the silence")
        queries = [seen.query for seen in server.requests(api_server.SERVICES)]
    assert ["sendInitialEvents" in query for query in queries[:4]] == [True, False, False, True]


def test_another_server_goes_on(tmp_path: Path) -> None:
    """The first of several servers stops to answer, the next one has the rest; then the other way round."""
    with ApiServer() as first, ApiServer() as second:
        servers = (first.url, second.url)
        first.put(api_server.SERVICES, service("a", 80), "uid")
        second.put(api_server.SERVICES, service("a", 80), "uid")
        with Following(first.kubeconfig(tmp_path), SERVICES, servers=servers) as following:
            wait_until(lambda: first.watches(api_server.SERVICES), "the first server")
            first.stop()
            wait_until(lambda: second.watches(api_server.SERVICES), "the second server")
            second.put(api_server.SERVICES, service("a", 81), "uid")
            wait_until(lambda: port_of(following.state, "a") == 81, "a change there")
            first.start()
            second.stop()
            wait_until(lambda: first.watches(api_server.SERVICES), "the first server again")


def test_other_credentials_are_used_when_these_are_refused(server: ApiServer, tmp_path: Path) -> None:
    """The token's file has changed meanwhile."""
    token = tmp_path / "token"
    token.write_text("old\n")
    server.tokens = frozenset({"old"})
    with Following(server.kubeconfig(tmp_path, tokenFile="token"), SERVICES) as following:
        wait_until(lambda: following.is_listed, "the list")
        server.tokens = frozenset({"new"})
        server.break_watches(api_server.SERVICES)
        asked = len(server.requests(api_server.SERVICES))
        wait_until(lambda: len(server.requests(api_server.SERVICES)) > asked + 1, "refusals")
        token.write_text("new\n")
        wait_until(lambda: server.watches(api_server.SERVICES), "the watch with the new token")
