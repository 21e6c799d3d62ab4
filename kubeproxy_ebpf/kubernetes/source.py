# SPDX-License-Identifier: Apache-2.0
"""The API server as source: a thread with an event loop of its own, and a queue from there to the agent's loop.

What comes through the queue is decoded and small. The agent wakes by a file descriptor and never waits for a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import structlog

from kubeproxy_ebpf.decode import ObjectError, decode_node
from kubeproxy_ebpf.kubernetes.api_client import ApiClient
from kubeproxy_ebpf.kubernetes.kinds import KINDS
from kubeproxy_ebpf.kubernetes.login import Login
from kubeproxy_ebpf.kubernetes.reflector import Batch, Reflector
from kubeproxy_ebpf.kubernetes.report import Reporter
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.source import ObjectKey, Occurrence, Update

FIRST_REMINDER, LATER_REMINDERS = 10.0, 60.0
"""Seconds after which it is said what is still missing at the start."""
_CLOSE_SECONDS: Final = 0.5

_log = structlog.get_logger(__name__)


class ApiServerSource:
    """Services, EndpointSlices, ServiceCIDRs and this node's Node, as an API server has them."""

    def __init__(
        self, *, kubeconfig: Path | None, api_servers: tuple[str, ...], node_name: str, needs_pod_cidrs: bool
    ) -> None:
        """Begin. Without a kubeconfig the pod's service account is used.

        Raises:
            KubeconfigError: it is not said how to reach the API server.
        """
        self._login = Login(kubeconfig, api_servers)
        self._node_name = node_name
        self._needs_pod_cidrs = needs_pod_cidrs
        self._queue: deque[Batch] = deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._missing = {kind.kind for kind in KINDS} | {"Node"}
        self._refused: dict[str, int] = {}
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[None] | None = None
        self._reporter: Reporter | None = None
        self._thread = threading.Thread(target=self._run, name="kubernetes", daemon=True)
        self._thread.start()

    @property
    def is_listed(self) -> bool:
        """Whether every kind was listed once, and the Node says which addresses it has."""
        return not self._missing

    @property
    def is_complete(self) -> bool:
        """Whether all objects are known, also those that cannot be used."""
        return not self._missing and not any(self._refused.values())

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to drain."""
        return self._event

    def due(self) -> float | None:
        """Return None: nothing happens but by the descriptor."""
        return None

    def drain(self) -> list[Update]:
        """Return what came since the last call. Raises what ended the thread, if anything did."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return []
        if self._error is not None:
            raise self._error
        updates: list[Update] = []
        while self._queue:
            batch = self._queue.popleft()
            updates += batch.updates
            self._refused[batch.kind] = batch.refused
            if batch.is_listed:
                self._missing.discard(batch.kind)
        return updates

    def report(self, occurrence: Occurrence) -> None:
        """Have an event written, some time; not after what drain() raises."""
        if self._loop is not None and self._reporter is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and drain() says why
                self._loop.call_soon_threadsafe(self._reporter.add, occurrence)

    def close(self) -> None:
        """Let go of the server. What takes long to end is left behind."""
        if self._loop is not None and self._main_task is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it ended meanwhile
                self._loop.call_soon_threadsafe(self._main_task.cancel)
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._follow())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by drain(), where it ends the agent
            self._error = error
            os.eventfd_write(self._event, 1)

    async def _follow(self) -> None:
        self._main_task = asyncio.current_task()
        client = ApiClient(self._login)
        reporter = Reporter(client, self._node_name)
        try:
            # In this order: kopf, when it ends, cancels every task that is younger than itself.
            async with asyncio.TaskGroup() as group:
                for kind in KINDS:
                    group.create_task(Reflector(kind, client, self._deliver).run(), name=f"reflector {kind.kind}")
                group.create_task(reporter.run(), name="reporter")
                group.create_task(self._remind(), name="reminder")
                self._reporter, self._loop = reporter, asyncio.get_running_loop()
                reporter.add(self._starting())
                operator = await asyncio.to_thread(_import_operator)
                group.create_task(operator.serve(client, self._node_name, self._take_node), name="operator")
        finally:
            await client.close()

    def _deliver(self, batch: Batch) -> None:
        self._queue.append(batch)
        os.eventfd_write(self._event, 1)

    def _take_node(self, event: str | None, raw: Mapping[str, Any]) -> None:
        if event == "DELETED":
            _log.warning("node_gone", node=self._node_name, reason="its last state stays until it is there again")
            return
        try:
            node = decode_node(raw)
        except ObjectError as error:
            _log.error("object_refused", object=f"Node {self._node_name}", reason=str(error))
            return
        for problem in node.problems:
            _log.warning("node_problem", node=self._node_name, problem=problem)
        is_usable = bool(node.addresses) and (bool(node.pod_cidrs) or not self._needs_pod_cidrs)
        update = Update(ObjectKey("Node", ObjectName("", node.name)), node)
        self._deliver(Batch("Node", [update] if is_usable else [], is_usable))

    async def _remind(self) -> None:
        """Say what the start waits for."""
        delay = FIRST_REMINDER
        while self._missing:
            await asyncio.sleep(delay)
            delay = LATER_REMINDERS
            if self._missing:
                remedy = "see the messages before this one; the Node needs an address, and a podCIDR in mode NodeCIDR"
                _log.warning("waiting_for_api_server", missing=sorted(self._missing), reason=remedy)

    def _starting(self) -> Occurrence:
        node = ObjectKey("Node", ObjectName("", self._node_name))
        return Occurrence(node, "Starting", "", action="StartKubeProxy", is_warning=False, uid=self._node_name)


def _import_operator() -> ModuleType:
    from kubeproxy_ebpf.kubernetes import operator  # noqa: PLC0415 - beside the first requests, see _follow()

    return operator
