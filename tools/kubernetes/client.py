# SPDX-License-Identifier: Apache-2.0
"""Requests to an API server from outside its network namespace, one at a time over one connection."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tools.kubernetes.errors import ApiError

TIMEOUT = 30.0
"""Seconds for each answer."""
MERGE_PATCH = "application/merge-patch+json"
_JSON = "application/json"
_WITHOUT_NAMESPACE = ("Namespace", "Node", "ServiceCIDR", "ClusterRole", "ClusterRoleBinding")

Connect = Callable[[], socket.socket]


class _Connection(http.client.HTTPSConnection):
    """A connection of which somebody else makes the socket."""

    def __init__(self, connect: Connect, host: str, context: ssl.SSLContext) -> None:
        super().__init__(host, context=context)
        self._make_socket = connect
        self._tls = context

    def connect(self) -> None:
        self.sock = self._tls.wrap_socket(self._make_socket(), server_hostname=self.host)

    def has_ended(self) -> bool:
        """Whether the server has ended it since the last answer: then there is something to read."""
        return self.sock is not None and bool(select.select([self.sock], [], [], 0)[0])


class Client:
    """Requests in the name of one user. Not for several threads at once."""

    def __init__(self, connect: Connect, host: str, authority: Path, token: str) -> None:
        """Connect when first used; ``host`` is the name or address that the certificate is for."""
        self._connection = _Connection(connect, host, ssl.create_default_context(cafile=authority))
        self._headers = {"Authorization": f"Bearer {token}"}

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = _JSON) -> bytes:
        """Return the body of an answer.

        Raises:
            ApiError: the server refuses.
            OSError, HTTPException: there is no answer. The next request connects anew.
        """
        headers = self._headers | ({} if body is None else {"Content-Type": content})
        if self._connection.has_ended():
            self._connection.close()
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = self._connection.getresponse()
            answer = response.read()
        except BaseException:
            self._connection.close()
            raise
        if response.status >= HTTPStatus.BAD_REQUEST:
            error = _refusal(method, path, response.status, answer)
            raise error
        return answer

    def get(self, path: str) -> dict[str, Any]:
        """Return the object or list at a path."""
        return _object(self.request("GET", path))

    def read(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return an object as it is now."""
        return _object(self.request("GET", path_of(known)))

    def create(self, new: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, and its status in a second step, as Kubernetes ignores that of a new one."""
        made = _object(self.request("POST", collection_of(new), new))
        return self.patch(new, {"status": new["status"]}, "/status") if new.get("status") else made

    def replace(self, newest: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object, but not its status."""
        return _object(self.request("PUT", path_of(newest), newest))

    def patch(self, known: Mapping[str, Any], change: Mapping[str, Any], below: str = "") -> dict[str, Any]:
        """Merge a change into an object, or into its status (``below="/status"``)."""
        return _object(self.request("PATCH", path_of(known) + below, change, MERGE_PATCH))

    def delete(self, known: Mapping[str, Any]) -> None:
        """Delete an object at once."""
        self.request("DELETE", f"{path_of(known)}?gracePeriodSeconds=0")

    def list(self, kind: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return all objects of the kind and apiVersion of a given one, in all namespaces; each says its kind."""
        answer = self.get(f"{_prefix(kind)}/{_plural(kind)}")
        return [{"apiVersion": kind["apiVersion"], "kind": kind["kind"], **item} for item in answer["items"]]

    def watch(self, collection: str, selector: str = "") -> Iterator[dict[str, Any]]:
        """Yield an event for each object of a collection, then for each change, until the server ends it.

        The client is busy with that. ``selector``: a field selector.

        Raises:
            ApiError, OSError, HTTPException: as :meth:`request`.
        """
        self._connection.connect()
        self._connection.sock.settimeout(None)
        query = f"?watch=1&fieldSelector={quote(selector)}" if selector else "?watch=1"
        self._connection.request("GET", collection + query, headers=self._headers)
        with self._connection.getresponse() as response:
            if response.status >= HTTPStatus.BAD_REQUEST:
                error = _refusal("GET", collection, response.status, response.read())
                raise error
            for line in response:
                yield _object(line)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def collection_of(known: Mapping[str, Any]) -> str:
    """Return the path of all objects of a kind in an object's namespace."""
    if known["kind"] in _WITHOUT_NAMESPACE:
        return f"{_prefix(known)}/{_plural(known)}"
    return f"{_prefix(known)}/namespaces/{known['metadata'].get('namespace', 'default')}/{_plural(known)}"


def path_of(known: Mapping[str, Any]) -> str:
    """Return the path of an object."""
    return f"{collection_of(known)}/{quote(known['metadata']['name'], safe='')}"


def _prefix(known: Mapping[str, Any]) -> str:
    version = known["apiVersion"]
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _plural(known: Mapping[str, Any]) -> str:
    return f"{known['kind'].lower()}s"


def _object(answer: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(answer)
    return decoded


def _refusal(method: str, path: str, status: int, answer: bytes) -> ApiError:
    try:
        said = json.loads(answer)
    except ValueError:
        said = {}
    message = said.get("message", answer.decode(errors="replace"))
    return ApiError(f"{method} {path}", status, said.get("reason", ""), message)
