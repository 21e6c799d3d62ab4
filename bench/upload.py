# SPDX-License-Identifier: Apache-2.0
"""Creates Services, EndpointSlices and the Node through the API; what exists already is left alone.

usage: upload.py SERVER TOKEN COUNT ENDPOINTS
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from bench import fleet

WORKERS = 8
_CREATED, _CONFLICT, _INVALID = 201, 409, 422
_NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fleet.NAMESPACE}}


class UploadError(Exception):
    """The API refused an object."""


class Api:
    """One connection to the API server."""

    def __init__(self, server: str, token: str) -> None:
        """Connect when first used. The certificate is one that the server made itself a moment ago."""
        parts = urlsplit(server)
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 - see above
        self._connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def create(self, path: str, body: dict[str, Any]) -> None:
        """Create an object that may exist already."""
        self._connection.request("POST", path, json.dumps(body), self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        taken = response.status == _INVALID and b"already allocated" in answer
        if response.status not in {_CREATED, _CONFLICT} and not taken:
            msg = f"{path}: {response.status} {answer.decode(errors='replace')}"
            raise UploadError(msg)


def _create(api: Api, number: int, endpoints: int) -> None:
    core, discovery = "/api/v1/namespaces", "/apis/discovery.k8s.io/v1/namespaces"
    api.create(f"{core}/{fleet.NAMESPACE}/services", fleet.service(number))
    slices = f"{discovery}/{fleet.NAMESPACE}/endpointslices"
    api.create(slices, fleet.endpoint_slice(number, range(endpoints)))


def _work(server: str, token: str, numbers: Iterator[int], endpoints: int, failures: list[Exception]) -> None:
    api = Api(server, token)
    try:
        for number in numbers:
            _create(api, number, endpoints)
    except (UploadError, OSError, http.client.HTTPException) as error:
        failures.append(error)


def main(server: str, token: str, count: str, endpoints: str) -> int:
    """Create ``count`` Services with several connections at a time."""
    api = Api(server, token)
    api.create("/api/v1/namespaces", _NAMESPACE)
    api.create("/api/v1/nodes", fleet.node())
    failures: list[Exception] = []
    threads = [
        threading.Thread(
            target=_work, args=(server, token, iter(range(start, int(count), WORKERS)), int(endpoints), failures)
        )
        for start in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
