# SPDX-License-Identifier: Apache-2.0
"""Creates Services, EndpointSlices and the Node through the API."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from typing import Any

from bench import fleet, rounds
from tools.kubernetes.client import Client
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.errors import ApiError

_WORKERS = 8
_NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fleet.NAMESPACE}}


def fill(plane: ControlPlane, count: int, endpoints: int) -> None:
    """Create the Services up to ``count`` that are not there yet, with their EndpointSlices.

    Raises:
        ApiError: the API server refused an object.
    """
    rounds.show(f"filling the API with {count:,} Services")
    with closing(plane.client()) as client:
        _create(client, (_NAMESPACE, fleet.node()))

    def work(start: int) -> None:
        with closing(plane.client()) as client:
            for number in range(start, count, _WORKERS):
                _create(client, (fleet.service(number), fleet.endpoint_slice(number, range(endpoints))))

    with ThreadPoolExecutor(_WORKERS) as workers:
        list(workers.map(work, range(_WORKERS)))
    rounds.show("")


def _create(client: Client, objects: Iterable[dict[str, Any]]) -> None:
    """Create objects that may exist already."""
    for one in objects:
        try:
            client.create(one)
        except ApiError as error:
            is_taken = error.status == HTTPStatus.UNPROCESSABLE_ENTITY and "already allocated" in error.message
            if error.status != HTTPStatus.CONFLICT and not is_taken:
                raise
