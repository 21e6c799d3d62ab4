# SPDX-License-Identifier: Apache-2.0
"""The one part that is not Kubernetes' own: it plays the node's kubelet, with network namespaces for containers.

It registers the Node, runs a server for each Pod that the scheduler gives it, connects to it before it says Ready,
and ends Pods the way a kubelet does: the preStop pause, then the server, then the object, then the namespace.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.waiting import wait_until
from demo.world import PORT, Machine, World
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.namespace import connect

FIRST_NUMBER = 101
"""Last part of the first pod's addresses; none is used twice."""
_MOST_PODS = 50
_SANDBOX_SECONDS = 5.0
"""How long a pod's namespace outlives its server, as sandboxes do that are collected later."""
_PROBE_SECONDS = 0.5
_CONDITIONS = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")


@dataclass(frozen=True, slots=True)
class _Life:
    """A Pod on this node."""

    leaving: threading.Event = field(default_factory=threading.Event)
    """Set when it is being deleted."""


class Kubelet:
    """Plays the kubelet of a machine. What goes wrong in its threads is raised by :meth:`check`."""

    def __init__(self, plane: ControlPlane, world: World, machine: Machine, node_name: str) -> None:
        """Prepare; nothing is done before :meth:`start`."""
        self._plane, self._world, self._machine, self._node_name = plane, world, machine, node_name
        self._numbers = itertools.count(FIRST_NUMBER)
        self._lives: dict[str, _Life] = {}
        self._workers = ThreadPoolExecutor(_MOST_PODS + 1)
        self._work: list[Future[None]] = []
        self._ending = threading.Event()
        self.reported: dict[str, int] = {}
        """When it began to tell that a Pod is ready, by name, in nanoseconds of CLOCK_MONOTONIC."""

    def start(self) -> None:
        """Register the Node and begin to follow its Pods."""
        with closing(self._plane.client()) as client:
            client.create(_node(self._node_name, self._machine))
        self._work.append(self._workers.submit(self._follow))

    def check(self) -> None:
        """Raise what has gone wrong, if anything."""
        for work in self._work:
            if work.done():
                work.result()

    def stop(self) -> None:
        """Follow no longer, and let everybody go home: the Pods end with the demo."""
        self._ending.set()
        for life in self._lives.values():
            life.leaving.set()

    def _follow(self) -> None:
        """Begin a life for each new Pod, and say to each that is being deleted that it is time to go."""
        with closing(self._plane.client()) as client:
            for event in client.watch("/api/v1/pods", f"spec.nodeName={self._node_name}"):
                pod = event["object"]
                uid = pod["metadata"]["uid"]
                if uid not in self._lives and event["type"] != "DELETED":
                    self._lives[uid] = _Life()
                    self._work.append(self._workers.submit(self._live, pod, self._lives[uid]))
                if "deletionTimestamp" in pod["metadata"] or event["type"] == "DELETED":
                    self._lives[uid].leaving.set()

    def _live(self, pod: Mapping[str, Any], life: _Life) -> None:
        """Be a Pod, from its first to its last moment."""
        name = pod["metadata"]["name"]
        addresses = self._world.add_pod(name, next(self._numbers))
        wait_until(lambda: self._answers(addresses[0]), f"{name} to answer its readiness probe")
        with closing(self._plane.client()) as client:
            self.reported[name] = time.monotonic_ns()
            client.patch(pod, {"status": _running(pod, addresses, self._machine)}, "/status")
        life.leaving.wait()
        self._ending.wait(pre_stop_seconds(pod["spec"]))
        if self._ending.is_set():
            return
        self._world[name].stop_serving()
        with closing(self._plane.client()) as client:
            client.delete(pod)
        self._ending.wait(_SANDBOX_SECONDS)
        self._world.remove_pod(name)

    def _answers(self, address: str) -> bool:
        """Connect from the node as a readiness probe does: to the pod itself, not through a Service."""
        node = Path(f"/proc/{self._world[self._machine.name].process}/ns/net")
        try:
            with connect(node, address, PORT, _PROBE_SECONDS) as probe:
                return bool(probe.recv(1))
        except OSError:
            return False


def pre_stop_seconds(spec: Mapping[str, Any]) -> float:
    """Return how long the containers of a Pod want to go on after its deletion."""
    hooks = (container.get("lifecycle", {}).get("preStop", {}) for container in spec["containers"])
    return max(float(hook.get("sleep", {}).get("seconds", 0)) for hook in hooks)


def _node(name: str, machine: Machine) -> dict[str, Any]:
    room = {"cpu": "8", "memory": "8Gi", "pods": str(_MOST_PODS)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address} for address in (machine.ipv4, machine.ipv6)],
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def _running(pod: Mapping[str, Any], addresses: tuple[str, str], machine: Machine) -> dict[str, Any]:
    """Return the status of a Pod that runs and is ready."""
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {}},
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "phase": "Running",
        "hostIP": machine.ipv4,
        "podIP": addresses[0],
        "podIPs": [{"ip": address} for address in addresses],
        "conditions": [{"type": condition, "status": "True"} for condition in _CONDITIONS],
        "containerStatuses": containers,
    }
