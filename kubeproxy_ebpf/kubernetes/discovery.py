# SPDX-License-Identifier: Apache-2.0
"""What kopf asks a server for before it watches anything, answered from what is known: which kinds there are.

The answers would be the same from every server, hundreds of kilobytes in five requests, for every node of a cluster
that starts at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Self

import aiohttp


def _kind(name: str, plural: str) -> dict[str, Any]:
    return {"name": plural, "singularName": name.lower(), "kind": name, "namespaced": False, "verbs": ["list", "watch"]}


# kopf waits until it has heard of namespaces, whatever it watches.
_ANSWERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "/api": {"versions": ["v1"]},
    "/api/v1": {"resources": [_kind("Node", "nodes"), _kind("Namespace", "namespaces")]},
    "/apis": {"groups": []},
}


class DiscoverySession:
    """A session for kopf: what it asks about kinds is answered here, everything else by the server."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        """Stand before a session with a server, whose URL may have a path."""
        self._session = session
        self._server = server.rstrip("/")
        self.headers = session.headers

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._session.closed

    async def request(self, method: str, url: str, **options: Any) -> aiohttp.ClientResponse | _Answer:  # noqa: ANN401 - handed on
        """Ask for something."""
        answer = _ANSWERS.get(url.removeprefix(self._server)) if method == "get" and not self.closed else None
        return _Answer(answer) if answer else await self._session.request(method, url, **options)

    async def close(self) -> None:
        """Close it."""
        await self._session.close()


class _Answer:
    """As much of an answer as kopf looks at."""

    status = HTTPStatus.OK

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body

    async def json(self) -> Mapping[str, Any]:
        return self._body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass
