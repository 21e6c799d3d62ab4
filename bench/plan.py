# SPDX-License-Identifier: Apache-2.0
"""How much is measured: the quick run and the full one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.loads import Loads

ENDPOINTS = 2
"""Endpoints of each Service where connections are measured; the bulk measures have ten."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and counts of one run, and where its files go."""

    folder: Path
    loads: Loads
    sizes: tuple[int, ...]
    """How many Services there are, in turn."""
    kube_proxy_sizes: tuple[int, ...]
    """At which of them kube-proxy is measured as well."""
    latency_rounds: int
    latency_connections: int
    rate_rounds: int
    rate_milliseconds: int
    hook_rounds: int
    hook_connects: int
    bulk_rounds: int
    effect_rounds: int
    agent_sizes: tuple[int, ...]
    """How many Services of ten endpoints the agent holds when its memory is looked at."""


def quick(folder: Path, loads: Loads) -> Plan:
    """About two minutes, without kube-proxy."""
    return Plan(
        folder=folder,
        loads=loads,
        sizes=(1, 1_000, 10_000),
        kube_proxy_sizes=(),
        latency_rounds=11,
        latency_connections=1_000,
        rate_rounds=15,
        rate_milliseconds=150,
        hook_rounds=7,
        hook_connects=5_000,
        bulk_rounds=3,
        effect_rounds=20,
        agent_sizes=(1_000, 10_000),
    )


def full(folder: Path, loads: Loads, kube_proxy_sizes: tuple[int, ...]) -> Plan:
    """All of it, with more rounds."""
    return Plan(
        folder=folder,
        loads=loads,
        sizes=(1, 1_000, 10_000, 100_000),
        kube_proxy_sizes=kube_proxy_sizes,
        latency_rounds=31,
        latency_connections=1_000,
        rate_rounds=41,
        rate_milliseconds=250,
        hook_rounds=15,
        hook_connects=10_000,
        bulk_rounds=7,
        effect_rounds=60,
        agent_sizes=(1_000, 10_000),
    )
