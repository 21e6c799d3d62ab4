# SPDX-License-Identifier: Apache-2.0
"""Finds what kube-proxy leaves on a node when it is stopped: rules in each of its modes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

CLEANUP = "run `kube-proxy --cleanup` on the node once it is stopped there"

TOOLS = ("iptables-save", "ip6tables-save", "nft")


class Leftover(NamedTuple):
    """Something of kube-proxy's: a sentence on what, and how to remove it."""

    found: str
    remedy: str


def find_leftovers(net_devices: Path = Path("/sys/class/net")) -> tuple[Leftover, ...]:
    """Look for kube-proxy's chains, table and device in this network namespace.

    Tools that are not installed are not asked; then their rules cannot be seen either.
    """
    found = []
    for tool in ("iptables-save", "ip6tables-save"):
        chains = [line for line in _output(tool).splitlines() if _is_service_chain(line)]
        if chains:
            found.append(f"{len(chains)} {tool.removesuffix('-save')} chains of kube-proxy (KUBE-SERVICES, …)")
    tables = _output("nft", "list", "tables").splitlines()
    found += [f"the nftables {line}" for line in tables if line.endswith(" kube-proxy")]
    if (net_devices / "kube-ipvs0").exists():
        found.append("the device kube-ipvs0, which holds Service addresses for IPVS")
    return tuple(Leftover(what, CLEANUP) for what in found)


def missing_tools() -> tuple[str, ...]:
    """Return which of the tools that show rules are not installed."""
    return tuple(tool for tool in TOOLS if shutil.which(tool) is None)


def _is_service_chain(line: str) -> bool:
    """Tell kube-proxy's chains from the kubelet's (KUBE-KUBELET-CANARY, KUBE-FIREWALL), which stay."""
    prefixes = (
        ":KUBE-SERVICES",
        ":KUBE-NODEPORTS",
        ":KUBE-SVC-",
        ":KUBE-SEP-",
        ":KUBE-EXT-",
        ":KUBE-FW-",
        ":KUBE-SVL-",
    )
    return line.startswith(prefixes)


def _output(tool: str, *arguments: str) -> str:
    path = shutil.which(tool)
    if path is None:
        return ""
    return subprocess.run((path, *arguments), capture_output=True, text=True, check=False).stdout  # noqa: S603 -- fixed arguments
