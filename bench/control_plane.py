# SPDX-License-Identifier: Apache-2.0
"""A real API server with Services in it, and kube-proxy on nodes of the benchmark."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import fleet, rounds, world
from tools.kubernetes.build import build
from tools.kubernetes.control_plane import ControlPlane, Settings
from tools.kubernetes.control_plane import control_plane as real_control_plane
from tools.kubernetes.credentials import NODE_PROXIER
from tools.kubernetes.daemon import Daemon

ROOT = Path(__file__).parent.parent
ADDRESS = "10.193.0.1"
MODES = ("nftables", "iptables")
"""Kube-proxy's, that are compared with."""
_SYNC_SECONDS = 900


_numbers = itertools.count(1)


@contextmanager
def control_plane(folder: Path, *, is_audited: bool = False) -> Iterator[ControlPlane]:
    """Run etcd and kube-apiserver in a namespace of their own; build them first if need be."""
    programs = build()
    with tempfile.TemporaryDirectory(dir=folder) as own, world.namespace("control") as name:
        world.run("ip", "-n", name, "address", "add", f"{ADDRESS}/32", "dev", "lo")
        settings = Settings(
            programs=programs,
            folder=Path(own),
            namespace=world.file_of(name),
            address=ADDRESS,
            service_cidrs=world.SERVICES,
            is_audited=is_audited,
            # A log of requests that is not rotated, so that a position in it stays one.
            arguments=("--enable-priority-and-fairness=false", "--audit-log-maxsize=10000"),
        )
        with real_control_plane(settings) as plane:
            yield plane


def join(plane: ControlPlane, node: str) -> str:
    """Let a node reach the API server; return where its requests come from. Its device is called ``control``."""
    number = next(_numbers)  # of the device: that of a node that went may still be there
    near, far = f"10.193.{number}.5", f"10.193.{number}.6"
    control = plane.settings.namespace.name
    world.link(world.Plug(control, f"node{number}", near), world.Plug(node, "control", far))
    world.run("ip", "-n", node, "route", "add", ADDRESS, "via", near)
    return far


def kube_proxy_command(plane: ControlPlane, mode: str) -> tuple[str, ...]:
    """Return the command line of a kube-proxy in the given mode (``nftables``, ``iptables``)."""
    configuration = plane.settings.folder / f"{mode}.json"
    configuration.write_text(json.dumps(_proxy_configuration(plane, mode)))
    return str(plane.settings.programs / "kube-proxy"), f"--config={configuration}"


@contextmanager
def kube_proxy(plane: ControlPlane, node: str, mode: str) -> Iterator[Daemon]:
    """Run kube-proxy on a node."""
    join(plane, node)
    command = kube_proxy_command(plane, mode)
    daemon = Daemon(world.file_of(node), command, plane.settings.folder / f"kube-proxy-{mode}.log")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def _proxy_configuration(plane: ControlPlane, mode: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": fleet.NODE,
        "clusterCIDR": world.CLIENTS,
        "clientConnection": {"kubeconfig": str(plane.kubeconfig(NODE_PROXIER))},
        "conntrack": {"maxPerCore": 0},
        "logging": {"verbosity": 2},
    }


def wait_until_synced(client: str, proxy: Daemon, targets: Iterable[fleet.Target]) -> float:
    """Wait until a client, by its namespace, is connected to all of them; return the seconds that it took."""
    start = time.monotonic()
    ends = [f"{target.address}:{target.port}" for target in targets]
    # The module's folder must be the current one.
    probe = world.inside(client, sys.executable, "-m", "bench.probe", *ends)
    while time.monotonic() < start + _SYNC_SECONDS:
        proxy.check()
        if subprocess.run(probe, cwd=ROOT, check=False).returncode == 0:
            return time.monotonic() - start
        rounds.show(f"kube-proxy takes in all Services: {time.monotonic() - start:.0f} s")
        time.sleep(0.5)
    msg = f"kube-proxy has not taken in all Services after {_SYNC_SECONDS} s"
    raise world.WorldError(msg)
