# SPDX-License-Identifier: Apache-2.0
"""What the maps hold for one service port, packed as it is in them: what the next plan is compared with."""

from __future__ import annotations

from typing import NamedTuple

from kubeproxy_ebpf.map_schema import EMPTY_SET, Set
from kubeproxy_ebpf.plan.service_plan import ServicePortKey


class PlacedSet(NamedTuple):
    """A set where it stands in ``slots``; without backends its range is not its own."""

    place: Set = EMPTY_SET
    backends: tuple[int, ...] = ()
    """What its slots hold."""


NO_SET = PlacedSet()


class Owner(NamedTuple):
    """Where a frontend leads."""

    origin: int
    service: int
    kind: int


class PortState(NamedTuple):
    """One service port."""

    key: ServicePortKey | None
    """None: nobody knows whose it is."""
    service: int
    """Its service id."""
    affinity_seconds: int = 0
    flags: int = 0
    cluster: PlacedSet = NO_SET
    local: PlacedSet = NO_SET
    backends: tuple[int, ...] = ()
    """Backend ids."""
    entries: bytes = b""
    """Their entries, one after the other."""
    frontends: tuple[bytes, ...] = ()
    """Keys that it took; another service port may have taken them since."""
    source_ranges: frozenset[bytes] = frozenset()
    """Keys of ``source_ranges``."""
