# SPDX-License-Identifier: Apache-2.0
"""Whatever a server does, in the end the reflector knows what one that starts then knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import api_server, raw_objects
from tests.api_answers import Fault, event, refusing, saying, silent, status
from tests.api_server import ApiServer
from tests.unit.kubernetes.following import CHUNK, COUNT, Following, cold_start, port_of, service, wait_until


def churn(server: ApiServer) -> None:
    """Add, change, delete, and recreate under the same name."""
    path = api_server.SERVICES
    server.put(path, service("new"), "uid-new")
    server.put(path, service("s1", 81), "uid-1")
    server.delete(path, "uid-2")
    server.delete(path, "uid-3")
    server.put(path, service("s3", 83), "uid-3-again")


FAULTS: dict[str, Fault] = {
    "HTTP 410": refusing(410, "Expired"),
    "HTTP 400": refusing(400, "invalid resource version"),
    "HTTP 401": refusing(401),
    "HTTP 403": refusing(403),
    "HTTP 429": refusing(429, headers={"Retry-After": "0.2"}),
    "HTTP 429, for no number of seconds": refusing(429, headers={"Retry-After": "nan"}),
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
