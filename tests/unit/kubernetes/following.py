# SPDX-License-Identifier: Apache-2.0
"""A reflector in a thread, and what whoever listens to it knows in the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubeproxy_ebpf.kubernetes.api_client import ApiClient
from kubeproxy_ebpf.kubernetes.kinds import SERVICES, WatchedKind
from kubeproxy_ebpf.kubernetes.login import Login
from kubeproxy_ebpf.kubernetes.reflector import Batch, Reflector
from kubeproxy_ebpf.model.objects import KubernetesObject, Node, ObjectName, Service
from tests import raw_objects
from tests.api_server import ApiServer

COUNT = 7
"""Services that the fixture ``server`` has."""
CHUNK = 3
"""Objects in a part of its lists."""
PATIENCE = 60.0
"""Seconds."""

State = dict[ObjectName, KubernetesObject]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once a condition holds; fail after a generous time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.005)


class Following:
    """Enter it to begin; ``state`` is what its updates add up to."""

    def __init__(
        self, kubeconfig: Path, kind: WatchedKind, silence: float = 30.0, servers: tuple[str, ...] = ()
    ) -> None:
        """Follow objects of a kind. ``silence``: seconds without a word after which a server counts as gone."""
        self.kind = kind
        self.state: State = {}
        self.batches: list[Batch] = []
        self._kubeconfig = kubeconfig
        self._silence = silence
        self._servers = servers
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def is_listed(self) -> bool:
        """Whether the first list is over."""
        return any(batch.is_listed for batch in self.batches)

    @property
    def refused(self) -> int:
        """How many objects there are that cannot be used."""
        return self.batches[-1].refused if self.batches else 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        assert not self._task.done(), self._task.exception()
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._follow())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _follow(self) -> None:
        client = ApiClient(Login(self._kubeconfig, self._servers), self._silence)
        try:
            await Reflector(self.kind, client, self._take).run()
        finally:
            await client.close()

    def _take(self, batch: Batch) -> None:
        for update in batch.updates:
            name = update.key.name
            if update.newest is not None:
                self.state[name] = update.newest
            elif name in self.state and _uid(self.state[name]) == update.uid:
                del self.state[name]
        self.batches.append(batch)


def service(name: str, port: int = 80) -> dict[str, Any]:
    """Return a Service."""
    raw = raw_objects.changed(raw_objects.SERVICE, "metadata.name", name)
    return raw_objects.changed(raw, "spec.ports", [{"name": "http", "port": port}])


def cold_start(server: ApiServer, folder: Path) -> State:
    """Return what a reflector that starts now comes to know."""
    with Following(server.kubeconfig(folder), SERVICES) as fresh:
        wait_until(lambda: fresh.is_listed, "a fresh list")
        return fresh.state


def port_of(state: State, name: str) -> int:
    """Return the port of a Service, 0 if there is none."""
    found = state.get(ObjectName("shop", name))
    return found.ports[0].port if isinstance(found, Service) else 0


def _uid(newest: KubernetesObject) -> str:
    assert not isinstance(newest, Node)
    return newest.uid
