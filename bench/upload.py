# SPDX-License-Identifier: Apache-2.0
"""Creates Services, EndpointSlices and the Node through the API, and changes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from typing import Any

from bench import fleet, rounds
from tools.kubernetes.client import Client
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.errors import ApiError

_WORKERS = 8
_CHURN_WORKERS = 4
_PRIME = 7919
"""A step through the Services that is no divisor of how many there are: each comes once before any comes again."""
_NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fleet.NAMESPACE}}


def fill(plane: ControlPlane, count: int, endpoints: int) -> None:
    """Create the Services up to ``count`` that are not there yet, with their EndpointSlices.

    Raises:
        ApiError: the API server refused an object.
    """
    with closing(plane.client()) as client:
        create(client, (_NAMESPACE, fleet.node()))
    _for_each(
        plane,
        f"filling the API with {count:,} Services",
        range(count),
        lambda client, number: create(client, (fleet.service(number), fleet.endpoint_slice(number, range(endpoints)))),
    )


def resize(plane: ControlPlane, count: int, endpoints: int) -> None:
    """Give each of the Services so many endpoints."""
    _for_each(
        plane,
        f"giving {count:,} Services {endpoints} endpoints each",
        range(count),
        lambda client, number: set_endpoints(client, number, range(endpoints)),
    )


def set_endpoints(client: Client, number: int, indexes: Iterable[int], of: int | None = None) -> None:
    """Replace the endpoints of a Service, perhaps by some that were meant for another one (``of``)."""
    newest = fleet.endpoint_slice(number, ())
    newest["endpoints"] = fleet.endpoint_slice(number if of is None else of, indexes)["endpoints"]
    del newest["metadata"]["uid"]  # it has another by now
    client.replace(newest)


class Churn:
    """Endless changes: one Service after the other, in no order, gets back an endpoint and loses another."""

    def __init__(self, plane: ControlPlane, endpoints: int) -> None:
        """Begin with Services that have all of so many endpoints."""
        self._plane = plane
        self._endpoints = endpoints
        self._left_out: dict[int, int] = {}
        self._lock = threading.Lock()

    def run(self, services: int, rate: int, seconds: float) -> float:
        """Make so many changes a second; return how many a second it were."""
        total, start = int(rate * seconds), time.monotonic()
        turns = iter(range(total))

        def work(_: int) -> None:
            with closing(self._plane.client()) as client:
                while (turn := self._next(turns)) is not None:
                    time.sleep(max(0.0, start + turn / rate - time.monotonic()))
                    self._change(client, turn * _PRIME % services)

        with ThreadPoolExecutor(_CHURN_WORKERS) as workers:
            list(workers.map(work, range(_CHURN_WORKERS)))
        return total / (time.monotonic() - start)

    def _next(self, turns: Iterator[int]) -> int | None:
        with self._lock:
            return next(turns, None)

    def _change(self, client: Client, number: int) -> None:
        with self._lock:
            left_out = self._left_out[number] = (self._left_out.get(number, -1) + 1) % self._endpoints
        set_endpoints(client, number, (index for index in range(self._endpoints) if index != left_out))


def create(client: Client, objects: Iterable[dict[str, Any]]) -> None:
    """Create objects that may exist already."""
    for one in objects:
        try:
            client.create(one)
        except ApiError as error:
            is_taken = error.status == HTTPStatus.UNPROCESSABLE_ENTITY and "already allocated" in error.message
            if error.status != HTTPStatus.CONFLICT and not is_taken:
                raise


def _for_each(plane: ControlPlane, label: str, numbers: range, act: Callable[[Client, int], None]) -> None:
    def work(start: int) -> None:
        with closing(plane.client()) as client:
            for number in numbers[start::_WORKERS]:
                if start == 0:
                    rounds.show(f"{label}: {number:,}")
                act(client, number)

    with ThreadPoolExecutor(_WORKERS) as workers:
        list(workers.map(work, range(_WORKERS)))
    rounds.show("")
