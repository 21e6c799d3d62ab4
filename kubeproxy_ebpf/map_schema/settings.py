# SPDX-License-Identifier: Apache-2.0
"""The one entry of ``settings``: what the operator decided for this node."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from kubeproxy_ebpf.map_schema.words import word_of_two
from kubeproxy_ebpf.model.address import Address, Prefix

MAX_CIDRS: Final = 8

SETTINGS_LOCALHOST_NODE_PORTS: Final = 1
SETTINGS_LISTENING: Final = 2

_SETTINGS_HEAD = Struct("=I4xIIQ16s16s")
_PREFIX = Struct("16s16s")

SETTINGS_SIZE: Final = _SETTINGS_HEAD.size + 2 * MAX_CIDRS * _PREFIX.size
SETTINGS_FLAGS_OFFSET: Final = 0
SETTINGS_COUNTS_OFFSET: Final = 8
SETTINGS_NETNS_COOKIE_OFFSET: Final = 16
SETTINGS_SOURCES_OFFSET: Final = 24
SETTINGS_PREFIXES_OFFSET: Final = _SETTINGS_HEAD.size


class SettingsEntry(NamedTuple):
    """The one entry of ``settings``."""

    flags: int = 0
    service_cidrs: tuple[Prefix, ...] = ()
    excluded_cidrs: tuple[Prefix, ...] = ()
    host_netns_cookie: int = 0
    host_source_ipv4: Address | None = None
    host_source_ipv6: Address | None = None


def pack_sources(ipv4: Address | None, ipv6: Address | None) -> bytes:
    """Pack the host's source addresses, as they stand in ``settings``."""
    return (ipv4 or bytes(16)) + (ipv6 or bytes(16))


def pack_prefixes(prefixes: tuple[Prefix, ...]) -> bytes:
    """Pack one of the prefix lists of ``settings``."""
    packed = [
        _PREFIX.pack(prefix.network, (((1 << prefix.length) - 1) << (128 - prefix.length)).to_bytes(16, "big"))
        for prefix in prefixes
    ]
    return b"".join(packed).ljust(MAX_CIDRS * _PREFIX.size, b"\0")


def prefix_counts_word(service_cidrs: int, excluded_cidrs: int) -> int:
    """Return the word {service_cidr_count, excluded_cidr_count}."""
    return word_of_two(service_cidrs, excluded_cidrs)


def settings_flags_word(flags: int) -> int:
    """Return the word {flags, pad}."""
    return word_of_two(flags, 0)


def unpack_settings(data: bytes | memoryview) -> SettingsEntry:
    """Unpack the entry of ``settings``."""
    flags, service_count, excluded_count, cookie, ipv4, ipv6 = _SETTINGS_HEAD.unpack_from(data)
    prefixes = [
        Prefix(Address(network), int.from_bytes(mask, "big").bit_count())
        for network, mask in _PREFIX.iter_unpack(bytes(data[SETTINGS_PREFIXES_OFFSET:SETTINGS_SIZE]))
    ]
    return SettingsEntry(
        flags,
        tuple(prefixes[: min(service_count, MAX_CIDRS)]),
        tuple(prefixes[MAX_CIDRS : MAX_CIDRS + min(excluded_count, MAX_CIDRS)]),
        cookie,
        Address(ipv4) if any(ipv4) else None,
        Address(ipv6) if any(ipv6) else None,
    )
