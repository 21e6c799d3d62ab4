# SPDX-License-Identifier: Apache-2.0
"""The objects in the API server, as tests make, change and remove them."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from typing import Any

from tools.kubernetes.client import Client, collection_of
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.errors import ApiError

SERVICE = {"apiVersion": "v1", "kind": "Service"}
ENDPOINT_SLICE = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}
NODE = {"apiVersion": "v1", "kind": "Node"}
SERVICE_CIDR = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR"}
KUBERNETES = "kubernetes"
"""The Service of the API server itself, and its EndpointSlice and ServiceCIDR, which it makes and keeps."""
_WORKERS = 4


class Cluster:
    """What is in the API server, over one connection to it."""

    def __init__(self, plane: ControlPlane) -> None:
        """Connect when first used."""
        self.plane = plane
        self._client = plane.client()
        self._namespaces = {"default"}

    def put(self, *objects: Mapping[str, Any]) -> None:
        """Create objects, or replace those that there are."""
        for one in objects:
            put(self._client, one)

    def put_many(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Create objects that are not there yet, several at a time."""
        self._for_each(objects, Client.create)

    def ensure_namespace(self, name: str) -> None:
        """Have a namespace; it stays for good."""
        if name not in self._namespaces:
            put(self._client, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            self._namespaces.add(name)

    def read(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return an object as it is now."""
        return self._client.read(known)

    def remove(self, *objects: Mapping[str, Any]) -> None:
        """Delete objects."""
        for one in objects:
            self._client.delete(one)

    def objects(self, *kinds: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return all objects of some kinds."""
        return [one for kind in kinds for one in self._client.list(kind)]

    def everything(self) -> list[dict[str, Any]]:
        """Return all objects that an agent's sources tell it."""
        return self.objects(NODE, SERVICE, ENDPOINT_SLICE, SERVICE_CIDR)

    def clear(self, but: tuple[str, ...] = ()) -> None:
        """Delete everything but what is the API server's, and what has certain names."""
        kept = (KUBERNETES, *but)
        selector = urllib.parse.quote(",".join(f"metadata.name!={name}" for name in kept))
        for kind in (SERVICE, ENDPOINT_SLICE, NODE, SERVICE_CIDR):
            found = [one for one in self.objects(kind) if one["metadata"]["name"] not in kept]
            for path in sorted({collection_of(one) for one in found}):
                self._client.request("DELETE", f"{path}?fieldSelector={selector}")

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def _for_each(
        self, objects: Iterable[Mapping[str, Any]], function: Callable[[Client, Mapping[str, Any]], object]
    ) -> None:
        everything = list(objects)

        def work(start: int) -> None:
            with closing(self.plane.client()) as client:
                for one in everything[start::_WORKERS]:
                    function(client, one)

        with ThreadPoolExecutor(_WORKERS) as workers:
            list(workers.map(work, range(_WORKERS)))


def put(client: Client, newest: Mapping[str, Any]) -> None:
    """Replace an object, or create it if it is not there, and give it its status."""
    try:
        client.replace(newest)
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        client.create(newest)
    else:
        if newest.get("status"):
            client.patch(newest, {"status": newest["status"]}, "/status")


def event(kind: str, what: Mapping[str, Any]) -> str:
    """Return a line of a watch."""
    return json.dumps({"type": kind, "object": what})
