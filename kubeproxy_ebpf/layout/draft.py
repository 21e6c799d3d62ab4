# SPDX-License-Identifier: Apache-2.0
"""Collects the changes of one batch: of each key only the last counts, and all come out in the order of phases."""

from __future__ import annotations

from dataclasses import dataclass

from kubeproxy_ebpf.layout.changes import (
    ArrayMap,
    Change,
    DeleteEntry,
    HashMap,
    InsertEntry,
    Phase,
    PublishWord,
    WriteEntries,
)
from kubeproxy_ebpf.layout.epochs import Retired
from kubeproxy_ebpf.model.objects import ObjectName

KeyedChange = InsertEntry | DeleteEntry


@dataclass(slots=True)
class _Run:
    """Consecutive entries of an array."""

    start: int
    end: int
    parts: list[bytes]


class Draft:
    """A batch in the making. Whoever writes for a Service says so in ``service`` before."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.service: ObjectName | None = None
        self.retired = Retired()
        self.keyed: dict[HashMap, dict[bytes, tuple[KeyedChange, ObjectName | None]]] = {name: {} for name in HashMap}
        """The last change of each key, and for whom it was made."""
        self._written: dict[ArrayMap, list[_Run]] = {}
        self._published: dict[tuple[Phase, ArrayMap], list[Change]] = {}

    def write(self, name: ArrayMap, at: int, count: int, data: bytes) -> None:
        """Write entries that no reader can reach yet. What follows what was written last is joined to it."""
        runs = self._written.get(name)
        if runs is None:
            runs = self._written[name] = []
        if runs and runs[-1].end == at:
            runs[-1].end += count
            runs[-1].parts.append(data)
        else:
            runs.append(_Run(at, at + count, [data]))

    def publish(self, phase: Phase, name: ArrayMap, at: int, offset: int, word: int) -> None:
        """Publish a word."""
        place = phase, name
        group = self._published.get(place)
        if group is None:
            group = self._published[place] = []
        group.append(PublishWord(phase, name, at, offset, word))

    def insert(self, phase: Phase, name: HashMap, key: bytes, value: bytes) -> None:
        """Insert or overwrite a key, whatever this batch wanted with it before."""
        self.keyed[name][key] = InsertEntry(phase, name, key, value), self.service

    def delete(self, phase: Phase, name: HashMap, key: bytes) -> None:
        """Delete a key, whatever this batch wanted with it before."""
        self.keyed[name][key] = DeleteEntry(phase, name, key), self.service

    def changes(self) -> tuple[Change, ...]:
        """Return all changes in the order of their phases, those of one map together."""
        groups: dict[tuple[Phase, str, bool], list[Change]] = {
            (phase, name.value, False): changes for (phase, name), changes in self._published.items()
        }
        for array, runs in self._written.items():
            groups[Phase.WRITE, array.value, False] = [
                WriteEntries(Phase.WRITE, array, run.start, b"".join(run.parts)) for run in runs
            ]
        for name, entries in self.keyed.items():
            for change, _ in entries.values():
                place = change.phase, name.value, type(change) is DeleteEntry
                group = groups.get(place)
                if group is None:
                    group = groups[place] = []
                group.append(change)
        return tuple(change for place in sorted(groups) for change in groups[place])
