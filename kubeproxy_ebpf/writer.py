# SPDX-License-Identifier: Apache-2.0
"""Carries out a batch of changes on a map store, in the order that layout gave them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.layout.changes import Change, DeleteEntry, InsertEntry, PublishWord, WriteEntries
from kubeproxy_ebpf.map_store import MapStore, MapWriteError


class FailedWrite(NamedTuple):
    """A change that the kernel refused, and why."""

    change: Change
    error: MapWriteError


def apply_changes(store: MapStore, changes: Sequence[Change]) -> list[FailedWrite]:
    """Write the changes in their order; what fails is returned, the rest goes on.

    Consecutive inserts into one map, and deletes from one, become one batch.
    """
    failed: list[FailedWrite] = []
    for (kind, _), group in groupby(changes, key=lambda change: (type(change), change.map)):
        if kind is WriteEntries or kind is PublishWord:
            for change in group:
                _store(store, change)
        else:
            failed += _call(store, [change for change in group if isinstance(change, InsertEntry | DeleteEntry)])
    return failed


def _store(store: MapStore, change: Change) -> None:
    if isinstance(change, WriteEntries):
        store.write(change.map, change.at * map_schema.ENTRY_SIZES[change.map], change.data)
    elif isinstance(change, PublishWord):
        start = change.at * map_schema.ENTRY_SIZES[change.map]
        store.publish(change.map, start + change.offset, change.word)


def _call(store: MapStore, entries: Sequence[InsertEntry | DeleteEntry]) -> list[FailedWrite]:
    inserts = [entry for entry in entries if isinstance(entry, InsertEntry)]
    errors = store.insert(inserts) if inserts else store.delete([e for e in entries if isinstance(e, DeleteEntry)])
    if not errors:
        return []
    by_key = {entry.key: entry for entry in entries}
    return [FailedWrite(by_key[error.key], error) for error in errors]
