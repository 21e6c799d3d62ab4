# SPDX-License-Identifier: Apache-2.0
"""What the controllers make of the EndpointSlices: when each Pod came into one, and when it was about to leave it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tools.kubernetes.control_plane import ControlPlane

_COLLECTION = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@dataclass(slots=True)
class Endpoint:
    """A Pod's way through an EndpointSlice: when a watch told, in nanoseconds of CLOCK_MONOTONIC."""

    ready: int | None = None
    """It may get connections."""
    leaving: int | None = None
    """It is terminating, or gone, and gets no new ones if others are ready."""
    gone: int | None = None
    """It is in no slice any more."""


class Slices:
    """Follows the EndpointSlices in a thread."""

    def __init__(self, plane: ControlPlane) -> None:
        """Prepare; nothing is done before :meth:`start`."""
        self._plane = plane
        self._lock = threading.Lock()
        self._endpoints: dict[str, Endpoint] = {}
        self._members: dict[str, frozenset[str]] = {}
        """Name of a slice -> the names of the Pods in it."""
        self._worker = ThreadPoolExecutor(1)
        self._work: Future[None] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._work = self._worker.submit(self._follow)

    def check(self) -> None:
        """Raise what has gone wrong, if anything."""
        if self._work is not None and self._work.done():
            self._work.result()

    def endpoints(self) -> dict[str, Endpoint]:
        """Return what happened so far, by the names of Pods."""
        with self._lock:
            return {name: Endpoint(one.ready, one.leaving, one.gone) for name, one in self._endpoints.items()}

    def _follow(self) -> None:
        with closing(self._plane.client()) as client:
            for event in client.watch(_COLLECTION):
                now = time.monotonic_ns()
                with self._lock:
                    self._take(event["type"], event["object"], now)

    def _take(self, event: str, newest: Mapping[str, Any], now: int) -> None:
        name = newest["metadata"]["name"]
        listed = () if event == "DELETED" else newest.get("endpoints") or ()
        members = {one["targetRef"]["name"]: one["conditions"]["ready"] for one in listed if "targetRef" in one}
        for pod, is_ready in members.items():
            known = self._endpoints.setdefault(pod, Endpoint())
            if is_ready and known.ready is None:
                known.ready = now
            if not is_ready and known.ready is not None and known.leaving is None:
                known.leaving = now
        for pod in self._members.get(name, frozenset()) - members.keys():
            known = self._endpoints[pod]
            known.leaving = known.leaving or now
            known.gone = now
        self._members[name] = frozenset(members)
