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
    packet_rounds: int
    packet_runs: int
    outside_sizes: tuple[int, ...]
    """How many Services there are besides, in turn, where clients come from outside."""
    outside_rate_rounds: int
    outside_lives: int
    """How often the agent is killed under load from outside."""
    transfer_rounds: int
    transfer_milliseconds: int
    datagram_rounds: int
    datagrams: int
    bulk_rounds: int
    effect_rounds: int
    agent_sizes: tuple[int, ...]
    """How many Services of ten endpoints the agent holds when its memory is looked at."""
    api_sizes: tuple[int, ...]
    """How many Services the API server has, in turn. At the last, proxies are started, killed and put under load."""
    api_cost_sizes: tuple[int, ...]
    """At which of them memory and churn are measured."""
    api_rounds: int
    """How often each proxy lives at each size but the last."""
    lives: tuple[str, ...]
    """Whose proxy lives at the last size, in turn."""
    cycles: int
    """A Service appears, changes and goes so many times in a life of ours."""
    kube_proxy_cycles: int
    """The same for kube-proxy, which takes much longer."""
    churn_rounds: int
    churn_seconds: float
    idle_seconds: float
    patience: float
    """Seconds in which kube-proxy must come up; where it does not, nothing else of it is measured."""
    connections_a_second: int = 500
    streams: int = 200
    changes_a_second: int = 100


def quick(folder: Path, loads: Loads) -> Plan:
    """Return what takes a few minutes: kube-proxy only where both follow an API server."""
    return Plan(
        folder=folder,
        loads=loads,
        sizes=(1, 1_000, 10_000),
        kube_proxy_sizes=(),
        latency_rounds=111,
        latency_connections=100,
        rate_rounds=15,
        rate_milliseconds=150,
        hook_rounds=35,
        hook_connects=1_000,
        packet_rounds=21,
        packet_runs=400,
        outside_sizes=(1, 10_000),
        outside_rate_rounds=11,
        outside_lives=2,
        transfer_rounds=5,
        transfer_milliseconds=500,
        datagram_rounds=41,
        datagrams=500,
        bulk_rounds=3,
        effect_rounds=20,
        agent_sizes=(1_000, 10_000),
        api_sizes=(100, 1_000),
        api_cost_sizes=(1_000,),
        api_rounds=1,
        lives=("ours", "nftables", "iptables"),
        cycles=10,
        kube_proxy_cycles=2,
        churn_rounds=2,
        churn_seconds=3,
        idle_seconds=5,
        patience=120,
    )


def full(folder: Path, loads: Loads, kube_proxy_sizes: tuple[int, ...]) -> Plan:
    """Return all of it, with more rounds."""
    return Plan(
        folder=folder,
        loads=loads,
        sizes=(1, 100, 1_000, 10_000, 100_000),
        kube_proxy_sizes=kube_proxy_sizes,
        latency_rounds=311,
        latency_connections=100,
        rate_rounds=41,
        rate_milliseconds=250,
        hook_rounds=151,
        hook_connects=1_000,
        packet_rounds=61,
        packet_runs=400,
        outside_sizes=(1, 1_000, 10_000),
        outside_rate_rounds=31,
        outside_lives=5,
        transfer_rounds=9,
        transfer_milliseconds=1_000,
        datagram_rounds=151,
        datagrams=500,
        bulk_rounds=7,
        effect_rounds=60,
        agent_sizes=(1_000, 10_000),
        api_sizes=(1, 100, 1_000, 10_000),
        api_cost_sizes=(1_000, 10_000),
        api_rounds=2,
        lives=("ours", "nftables", "ours", "iptables", "ours"),
        cycles=50,
        kube_proxy_cycles=3,
        churn_rounds=2,
        churn_seconds=10,
        idle_seconds=60,
        patience=180,
    )
