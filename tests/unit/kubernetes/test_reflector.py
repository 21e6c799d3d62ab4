# SPDX-License-Identifier: Apache-2.0
"""What a reflector asks for, and what it hands over."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeproxy_ebpf.kubernetes import reflector
from kubeproxy_ebpf.kubernetes.kinds import ENDPOINT_SLICES, SERVICE_CIDRS, SERVICES
from kubeproxy_ebpf.model.objects import EndpointSlice
from tests import api_server, raw_objects
from tests.api_answers import bookmark, refusing, silent
from tests.api_server import ApiServer
from tests.unit.kubernetes.following import COUNT, Following, cold_start, port_of, service, wait_until


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
        server.send(api_server.SERVICES, bookmark("Service", server.version))
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
        wait_until(lambda: following.is_listed and server.watches(api_server.SERVICES), "the watch")
        server.put(api_server.SERVICES, raw_objects.changed(service("s1", 81), "spec.ports", 7), "uid-1")
        wait_until(lambda: following.refused == 1, "the refusal")
        assert port_of(following.state, "s1") == 80
        server.put(api_server.SERVICES, service("s1", 82), "uid-1")
        wait_until(lambda: port_of(following.state, "s1") == 82, "the object that was mended")
        assert following.refused == 0
        server.put(api_server.SERVICES, raw_objects.changed(service("s2"), "spec.ports", 7), "uid-2")
        wait_until(lambda: following.refused == 1, "another refusal")
        server.delete(api_server.SERVICES, "uid-2")
        wait_until(lambda: not port_of(following.state, "s2"), "the object to be gone")
        assert following.refused == 0


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
