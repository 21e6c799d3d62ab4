# SPDX-License-Identifier: Apache-2.0
"""The ordered list of writes, as data: layout makes it, the reconciler applies it.

The order keeps every reader safe at every moment, and every crash between two writes harmless:
what is not reachable yet is written first, then what must be there before it is asked for, then the words that
publish, then the keys that lead there; keys go away before what they lead to does.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class ArrayMap(enum.Enum):
    """Arrays that user space writes through shared memory."""

    __hash__ = object.__hash__  # members are one of a kind; Enum's hashes the name, in Python

    SERVICES = "services"
    SLOTS = "slots"
    BACKENDS = "backends"
    ORIGINS = "origins"
    SETTINGS = "settings"


class HashMap(enum.Enum):
    """Maps with keys, written by system call."""

    __hash__ = object.__hash__

    ADDRESSES = "addresses"
    FRONTENDS = "frontends"
    SOURCE_RANGES = "source_ranges"
    SERVICE_NAMES = "service_names"


class Phase(enum.IntEnum):
    """When a change is applied, relative to the others of one batch. Within a phase the order is free."""

    WRITE = 0
    """Array entries that no reader can reach yet."""
    GUARD = 1
    """Names and source ranges: there before a flag or a frontend asks for them."""
    PUBLISH = 2
    """Sets that have members, flags of backends, prefixes."""
    RULE = 3
    """Affinity and flags of services: a set is there before the policy that picks it."""
    EMPTY = 4
    """Sets that lost their last member: the policy, and the verdict without endpoints, are there before."""
    EXPOSE = 5
    """Frontends, and origins that change hands."""
    ANNOUNCE = 6
    """Addresses: a ClusterIP refuses unknown ports only once its known ones answer."""
    CONCEAL = 7
    """Addresses that go."""
    WITHDRAW = 8
    """Frontends that go."""
    RETIRE = 9
    """Backends that stop serving: their generation moves on, after the sets without them are published. Origins
    without a frontend: nobody's."""
    UNGUARD = 10
    """A grace period later: source ranges and names that go, as nobody asks for them any more."""
    RELEASE = 11
    """A grace period later: backends that nobody can pick any more are marked as free."""


class WriteEntries(NamedTuple):
    """Copy bytes over whole consecutive entries of an array, from entry ``at`` on. Not atomic."""

    phase: Phase
    map: ArrayMap
    at: int
    data: bytes


class PublishWord(NamedTuple):
    """Store one aligned 64-bit word of an entry with release semantics."""

    phase: Phase
    map: ArrayMap
    at: int
    offset: int
    """Bytes from the entry's start."""
    word: int


class InsertEntry(NamedTuple):
    """Insert or overwrite one key."""

    phase: Phase
    map: HashMap
    key: bytes
    value: bytes


class DeleteEntry(NamedTuple):
    """Delete one key; that it is absent is no failure."""

    phase: Phase
    map: HashMap
    key: bytes


Change = WriteEntries | PublishWord | InsertEntry | DeleteEntry
