# SPDX-License-Identifier: Apache-2.0
"""Starts a real etcd, kube-apiserver and kube-proxy in namespaces, and fills the API with Services."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import fleet, rounds, world

ROOT = Path(__file__).parent.parent
ADDRESS = "10.193.0.1"
_SERVER = "https://{}:6443"
_READY_SECONDS = 120
_SYNC_SECONDS = 900
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A kube-apiserver that answers."""

    programs: Path
    folder: Path
    namespace: str
    token: str

    def fill(self, count: int, endpoints: int) -> None:
        """Create the Services up to ``count`` that are not there yet, with their EndpointSlices."""
        arguments = _python("bench.upload", _SERVER.format(ADDRESS), self.token, str(count), str(endpoints))
        rounds.show(f"filling the API with {count:,} Services")
        subprocess.run(world.inside(self.namespace, *arguments), cwd=ROOT, check=True)
        rounds.show("")


@contextmanager
def control_plane(programs: Path, folder: Path) -> Iterator[ControlPlane]:
    """Run etcd and kube-apiserver in a namespace of their own."""
    with ExitStack() as stack:
        name = stack.enter_context(world.namespace("control"))
        world.run("ip", "-n", name, "address", "add", f"{ADDRESS}/32", "dev", "lo")
        made = ControlPlane(programs, folder, name, secrets.token_hex(16))
        (folder / "tokens.csv").write_text(f'{made.token},admin,admin,"system:masters"\n')
        world.run("openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048")
        stack.enter_context(_process(world.inside(name, *_etcd(made)), folder / "etcd.log"))
        server = stack.enter_context(_process(world.inside(name, *_api_server(made)), folder / "kube-apiserver.log"))
        _wait_until_ready(made, server)
        yield made


def _etcd(plane: ControlPlane) -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        str(plane.programs / "etcd"),
        f"--data-dir={plane.folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        "--unsafe-no-fsync",
    ]


def _api_server(plane: ControlPlane) -> list[str]:
    key = plane.folder / "accounts.key"
    return [
        str(plane.programs / "kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={world.SERVICES}",
        f"--advertise-address={ADDRESS}",
        f"--cert-dir={plane.folder / 'certificates'}",
        f"--token-auth-file={plane.folder / 'tokens.csv'}",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=RBAC",
        "--enable-priority-and-fairness=false",
    ]


@contextmanager
def kube_proxy(plane: ControlPlane, pods: world.Pods, mode: str, number: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run kube-proxy on a node in the given mode (``nftables``, ``iptables``)."""
    near, far = f"10.193.{number}.5", f"10.193.{number}.6"
    world.link(world.Plug(plane.namespace, f"node{number}", near), world.Plug(pods.node, "control", far))
    world.run("ip", "-n", pods.node, "route", "add", ADDRESS, "via", near)
    configuration = plane.folder / f"{mode}.json"
    configuration.write_text(json.dumps(_proxy_configuration(plane, mode)))
    command = [str(plane.programs / "kube-proxy"), f"--config={configuration}"]
    with _process(world.inside(pods.node, *command), plane.folder / f"kube-proxy-{mode}.log") as process:
        yield process


def _proxy_configuration(plane: ControlPlane, mode: str) -> dict[str, object]:
    access = plane.folder / "kubeconfig.json"
    cluster = {"server": _SERVER.format(ADDRESS), "insecure-skip-tls-verify": True}
    access.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "bench", "cluster": cluster}],
                "users": [{"name": "admin", "user": {"token": plane.token}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "admin"}}],
                "current-context": "bench",
            }
        )
    )
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": fleet.NODE,
        "clusterCIDR": world.CLIENTS,
        "clientConnection": {"kubeconfig": str(access)},
        "conntrack": {"maxPerCore": 0},
        "logging": {"verbosity": 2},
    }


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(plane: ControlPlane, server: subprocess.Popen[bytes]) -> None:
    command = world.inside(plane.namespace, *_python("bench.probe", "api", _SERVER.format(ADDRESS)))
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if subprocess.run(command, cwd=ROOT, check=False).returncode == 0:
            return
        time.sleep(0.5)
    tail = (plane.folder / "kube-apiserver.log").read_text().splitlines()[-5:]
    msg = "kube-apiserver does not get ready:\n" + "\n".join(tail)
    raise world.WorldError(msg)


def _python(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of the benchmark; its folder must be :data:`ROOT`."""
    return [sys.executable, "-m", module, *arguments]


def wait_until_synced(pods: world.Pods, proxy: subprocess.Popen[bytes], count: int) -> float:
    """Wait until the last of ``count`` Services is in the node's rules; return the seconds that it took."""
    start = time.monotonic()
    probe = world.inside(pods.client, *_python("bench.probe", "services", str(count)))
    while time.monotonic() < start + _SYNC_SECONDS:
        if proxy.poll() is not None:
            msg = f"kube-proxy ended (exit code {proxy.returncode})"
            raise world.WorldError(msg)
        if subprocess.run(probe, cwd=ROOT, check=False).returncode == 0:
            return time.monotonic() - start
        rounds.show(f"kube-proxy takes in {count} Services: {time.monotonic() - start:.0f} s")
        time.sleep(0.5)
    msg = f"kube-proxy has not taken in {count} Services after {_SYNC_SECONDS} s"
    raise world.WorldError(msg)
