# SPDX-License-Identifier: Apache-2.0
"""Which file each object comes from: the one that had it first, for as long as it does. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubeproxy_ebpf.manifests.file import PlacedObject
from kubeproxy_ebpf.model.objects import KubernetesObject
from kubeproxy_ebpf.source import ObjectKey

_NOTHING: Mapping[ObjectKey, PlacedObject] = {}


class Claims:
    """The objects of every file, and for each object the files that hold it, the one in effect first."""

    def __init__(self) -> None:
        """Start without files."""
        self._objects: dict[str, Mapping[ObjectKey, PlacedObject]] = {}
        self._files: dict[ObjectKey, tuple[str, ...]] = {}

    @property
    def files(self) -> frozenset[str]:
        """The files that hold anything."""
        return frozenset(self._objects)

    def of(self, file: str) -> Mapping[ObjectKey, PlacedObject]:
        """Return the objects of a file."""
        return self._objects.get(file, _NOTHING)

    def holders(self, key: ObjectKey) -> tuple[str, ...]:
        """Return the files that hold an object, the one in effect first."""
        return self._files.get(key, ())

    def in_effect(self, key: ObjectKey) -> KubernetesObject | None:
        """Return the object that counts."""
        files = self._files.get(key)
        return self._objects[files[0]][key].newest if files else None

    def replace(self, file: str, objects: Mapping[ObjectKey, PlacedObject]) -> None:
        """Take over what a file holds now."""
        old = self.of(file)
        if objects:
            self._objects[file] = objects
        else:
            self._objects.pop(file, None)
        for key in old.keys() - objects.keys():
            rest = tuple(other for other in self._files[key] if other != file)
            if rest:
                self._files[key] = rest
            else:
                del self._files[key]
        for key in objects:
            if key not in old:
                self._files[key] = (*self._files.get(key, ()), file)

    def rivals(self, file: str) -> Iterator[tuple[ObjectKey, PlacedObject, str]]:
        """Yield the objects of a file that count from another file, with that file's name."""
        for key, placed in self.of(file).items():
            files = self._files[key]
            if files[0] != file:
                yield key, placed, files[0]
