# SPDX-License-Identifier: Apache-2.0
"""Tells the self-test's own entries, which no agent touches, from everybody else's."""

from __future__ import annotations

from kubeproxy_ebpf.model.address import parse_prefix

SELF_TEST_ORIGIN = 0
"""The self-test's frontends lead here."""

_PREFIXES = tuple(map(parse_prefix, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")))
"""Documentation addresses (RFC 5737, RFC 3849), which are nobody's; as whole bytes."""
_BEGINNINGS = tuple(prefix.network[: prefix.length // 8] for prefix in _PREFIXES)


def is_self_tests(key: bytes, origin: int) -> bool:
    """Whether a frontend is the self-test's. Its address is the self-test's, too."""
    return origin == SELF_TEST_ORIGIN and key.startswith(_BEGINNINGS)
