# SPDX-License-Identifier: Apache-2.0
"""Who wants which kind bit of which address: an entry of ``addresses`` is the OR over all Services."""

from __future__ import annotations

from collections.abc import Iterator

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.model.address import Address

Kind = tuple[Address, int]
"""An address with one kind bit."""

KNOWN_KINDS = schema.ADDRESS_CLUSTER_IP | schema.ADDRESS_EXTERNAL | schema.ADDRESS_NODE | schema.ADDRESS_EXCLUDED
_COUNT_BITS = 32
_SHIFTS = tuple((kind, (kind.bit_length() - 1) * _COUNT_BITS) for kind in (1, 2, 4, 8))
_ONE_MORE = {kind: 1 << shift for kind, shift in _SHIFTS}
_ANY = {kind: ((1 << _COUNT_BITS) - 1) << shift for kind, shift in _SHIFTS}


class AddressKinds:
    """Counts who wants what. The counts of an address are one number, 32 bits for each kind."""

    def __init__(self) -> None:
        """Start with nobody wanting anything."""
        self._counts: dict[Address, int] = {}

    def kinds(self, address: Address) -> int:
        """Return the kind bits of an address."""
        count = self._counts.get(address, 0)
        return sum([kind for kind, any_ in _ANY.items() if count & any_]) if count else 0

    def acquire(self, kind: Kind) -> None:
        """Somebody wants a kind."""
        address, bit = kind
        self._counts[address] = self._counts.get(address, 0) + _ONE_MORE[bit]

    def release(self, kind: Kind) -> None:
        """Somebody who wanted a kind wants it no more."""
        address, bit = kind
        count = self._counts[address] - _ONE_MORE[bit]
        if count:
            self._counts[address] = count
        else:
            del self._counts[address]

    def items(self) -> Iterator[tuple[Address, int]]:
        """Yield every address that somebody wants, and its kind bits."""
        known: dict[int, int] = {}  # the same few counts again and again
        for address, count in self._counts.items():
            if count not in known:
                known[count] = self.kinds(address)
            yield address, known[count]

    def __iter__(self) -> Iterator[Address]:
        """Yield every address that somebody wants."""
        return iter(self._counts)


def bits(kinds: int) -> list[int]:
    """Return the single bits of some kinds."""
    return [kind for kind in _ONE_MORE if kinds & kind]
