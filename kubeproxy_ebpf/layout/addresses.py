# SPDX-License-Identifier: Apache-2.0
"""The entries of ``addresses``: kind bits, as many Services may give one address theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import Change, DeleteEntry, HashMap, InsertEntry, Phase
from kubeproxy_ebpf.model.address import Address

Kinds = Iterable[tuple[Address, int]]
"""Addresses, each with one kind bit."""


class AddressKinds:
    """Counts who wants which kind bit, and knows what is in the map."""

    def __init__(self) -> None:
        """Start with an empty map."""
        self._wanted: Counter[tuple[Address, int]] = Counter()
        self._bits: dict[Address, int] = {}
        self._written: dict[Address, int] = {}

    @property
    def written(self) -> Mapping[Address, int]:
        """What is in the map."""
        return self._written

    def restore(self, written: Mapping[Address, int]) -> None:
        """Start over with what the map holds; nobody wants anything of it yet."""
        self._written = dict(written)

    def replace(self, old: Kinds, new: Kinds) -> set[Address]:
        """Take over what somebody wants now; return the addresses that this touches."""
        touched = set()
        for address, kind in new:
            self._wanted[address, kind] += 1
            self._bits[address] = self._bits.get(address, 0) | kind
            touched.add(address)
        for address, kind in old:
            self._wanted[address, kind] -= 1
            if not self._wanted[address, kind]:
                del self._wanted[address, kind]
                self._bits[address] &= ~kind
            touched.add(address)
        return touched

    def changes(self, touched: Iterable[Address]) -> list[Change]:
        """Return what must be written of these addresses."""
        changes: list[Change] = []
        for address in touched:
            wanted, written = self._bits.get(address, 0), self._written.get(address, 0)
            if wanted and wanted != written:
                value = schema.pack_u32(wanted)
                changes.append(InsertEntry(Phase.ANNOUNCE, HashMap.ADDRESSES, address, value))
            elif written and not wanted:
                changes.append(DeleteEntry(Phase.CONCEAL, HashMap.ADDRESSES, address))
        return changes

    def commit(self, touched: Iterable[Address], failed: Iterable[Address]) -> None:
        """Note that these addresses were written, but for those that failed."""
        for address in set(touched) - set(failed):
            if self._bits.get(address):
                self._written[address] = self._bits[address]
            else:
                self._bits.pop(address, None)
                self._written.pop(address, None)

    def leftovers(self) -> list[Address]:
        """Return the addresses in the map that nobody wants."""
        return [address for address in self._written if not self._bits.get(address)]
