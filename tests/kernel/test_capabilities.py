# SPDX-License-Identifier: Apache-2.0
"""What the agent may do is all that it needs: three capabilities, also on what an agent before it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import loader, memlock
from kubeproxy_ebpf.datapath.loader import Datapath
from tests.kernel.namespaces import Namespace

ROOT = Path(__file__).parents[2]
CAPABILITIES = "-all,+bpf,+net_admin,+perfmon"
LOAD = """
import socket
import sys
from pathlib import Path
from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.plan.devices import Device
pin_folder, cgroup = map(Path, sys.argv[1:])
loaded = loader.load(
    pin_folder=pin_folder, cgroup=cgroup, sizes=MapSizes(), lock_timeout=0, packet_objects=loader.PACKET_OBJECTS
)
device = Device("net0", has_ethernet=True, source_ipv4=None, source_ipv6=None)
attachments = loaded.packets.attachments()
attachments.attach(socket.if_nametoindex(device.name), device)
assert attachments.is_attached(socket.if_nametoindex(device.name), device)
loaded.packets.sweep()
print("restored" if loaded.restored else "new")
loaded.close()
"""
TRACE = """
import sys
from kubeproxy_ebpf.cli.main import main
sys.argv = ["kubeproxy-ebpf", "trace", "--from=pod", f"--bpffs={sys.argv[1]}", "10.96.0.10:80/TCP"]
main()
"""


@pytest.fixture
def host(node_namespace: Namespace) -> Namespace:
    """Return a node with a device that packet programs can be attached to."""
    node_namespace.run("ip", "link", "add", "net0", "type", "bridge")
    return node_namespace


def load_with_few_capabilities(host: Namespace, pin_folder: Path, cgroup: Path) -> str:
    """Load, attach and sweep with nothing but the documented capabilities; return whether anything was there."""
    return run_with_few_capabilities(host, LOAD, pin_folder, cgroup).split()[-1]


def run_with_few_capabilities(host: Namespace, script: str, *arguments: Path) -> str:
    """Run Python on a node with nothing but the documented capabilities; return what it printed."""
    command = ("setpriv", "--bounding-set", CAPABILITIES, sys.executable, "-c", script, *map(str, arguments))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with host.entered():
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    memlock.counts_maps(), reason="kernel: counts maps against RLIMIT_MEMLOCK, so it takes CAP_SYS_RESOURCE too"
)
def test_three_capabilities_are_enough(host: Namespace, pin_folder: Path, scratch_cgroup: Path) -> None:
    """A first start, a restart that replaces every program, and a trace, without CAP_SYS_ADMIN."""
    assert load_with_few_capabilities(host, pin_folder, scratch_cgroup) == "new"
    assert load_with_few_capabilities(host, pin_folder, scratch_cgroup) == "restored"
    assert " PASS " in run_with_few_capabilities(host, TRACE, pin_folder.parent)


@pytest.mark.parametrize("missing", ["bpf", "net_admin", "perfmon"])
def test_check_blames_the_missing_capability_alone(missing: str, pin_folder: Path, scratch_cgroup: Path) -> None:
    """Without a capability the kernel refuses hooks, helpers and maps that it has: they are not tried."""
    held = CAPABILITIES.replace(f",+{missing}", "")
    command = ("setpriv", "--bounding-set", held, sys.executable, "-m", "kubeproxy_ebpf.cli.main", "check", "--json")
    arguments = (f"--bpffs={pin_folder.parent}", f"--cgroup={scratch_cgroup}")
    done = subprocess.run((*command, *arguments), check=False, capture_output=True, text=True, cwd=ROOT)
    findings = json.loads(done.stdout)
    assert [one["name"] for one in findings if not one["ok"] and one["required"]] == [f"cap_{missing}"]
    assert "kernel" in [one["name"] for one in findings]
    assert done.returncode == 1


@pytest.mark.skipif(
    memlock.counts_maps(), reason="kernel: counts maps against RLIMIT_MEMLOCK, so it takes CAP_SYS_RESOURCE too"
)
def test_upgrade_of_what_root_left(host: Namespace, datapath: Datapath, pin_folder: Path, scratch_cgroup: Path) -> None:
    """An agent with few capabilities takes over from one that had them all."""
    datapath.close()
    assert load_with_few_capabilities(host, pin_folder, scratch_cgroup) == "restored"
    assert loader.unload(pin_folder, lock_timeout=0)
