# SPDX-License-Identifier: Apache-2.0
"""The text of one manifest file to objects of the model, and what is wrong with it.

YAML (several documents) or JSON; lists of kind List or ServiceList, nested or not. A syntax error refuses the
file; a malformed object is refused alone. Lines are looked up only for what is refused.
"""

from __future__ import annotations

import marshal
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from kubeproxy_ebpf import yaml_reader
from kubeproxy_ebpf.decode import (
    ObjectError,
    decode_endpoint_slice,
    decode_node,
    decode_service,
    decode_service_cidr,
)
from kubeproxy_ebpf.model.objects import Ignored, KubernetesObject, Node, ObjectName
from kubeproxy_ebpf.source import ObjectKey

LARGEST_FILE: Final = 64 << 20
MOST_PROBLEMS: Final = 20
"""Problems kept per file; the rest is counted."""
_DEEPEST_LIST: Final = 8
_AT_ONCE: Final = 100

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_FIELD_PART: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


class ManifestProblem(NamedTuple):
    """Something wrong with a file. ``line`` counts from 1; 0: unknown. ``subject``: the object, if one is concerned."""

    file: Path
    line: int
    subject: str
    reason: str
    """What is wrong and the remedy."""
    is_partial: bool = False
    """The object is in effect, without the part that this is about."""

    def __str__(self) -> str:
        """Return ``file:line: reason``."""
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


class PlacedObject(NamedTuple):
    """An object and where in its file it stands."""

    newest: KubernetesObject
    path: yaml_reader.Path


class FileContent(NamedTuple):
    """What a file says."""

    objects: Mapping[ObjectKey, PlacedObject]
    refused: frozenset[ObjectKey]
    """Objects that are there but malformed: their last good state stays."""
    has_unnamed: bool
    """Some malformed object does not even say who it is: nothing that this file had counts as gone."""
    problems: tuple[ManifestProblem, ...]
    other_kinds: frozenset[str]
    """Kinds of objects that are none of a proxy's business."""


class UnreadableFileError(Exception):
    """A file that cannot be read at all: its last good state stays. Never leaves this package."""

    def __init__(self, reason: str, line: int = 0) -> None:
        """Remember what is wrong, with the remedy, and the line if there is one."""
        super().__init__(reason)
        self.reason = reason
        self.line = line


def is_manifest(name: str) -> bool:
    """Whether a file of this name is read: not hidden, and with a suffix that editors' leftovers do not have."""
    return name.endswith(_SUFFIXES) and not name.startswith((".", "#"))


def read_text(file: Path) -> bytes | None:
    """Return a file's bytes; None if it does not exist.

    Raises:
        UnreadableFileError: it is no regular file, too large, or the system refuses.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"cannot be opened ({error.strerror}); make it readable or remove it"
        raise UnreadableFileError(msg) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            msg = "is no regular file; remove it"
            raise UnreadableFileError(msg)
        with open(descriptor, "rb", closefd=False) as opened:
            text = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        msg = f"cannot be read ({error.strerror}); make it readable or remove it"
        raise UnreadableFileError(msg) from error
    finally:
        os.close(descriptor)
    if len(text) > LARGEST_FILE:
        msg = f"is larger than {LARGEST_FILE >> 20} MiB; split it"
        raise UnreadableFileError(msg)
    return text


def read_objects(file: Path, text: bytes) -> FileContent:
    """Read a file's objects.

    Raises:
        UnreadableFileError: the text is neither YAML nor JSON, or exceeds a bound.
    """
    reader = _Reader(file)
    try:
        for index, document in enumerate(_documents(file, text)):
            reader.read(document, (index,))
    except yaml_reader.YamlError as error:
        msg = f"is not YAML: {error.problem}; mend it"
        raise UnreadableFileError(msg, error.line) from error
    except orjson.JSONDecodeError as error:
        msg = f"is not JSON: {error.msg}; mend it"
        raise UnreadableFileError(msg, error.lineno) from error
    return reader.content(text)


def _documents(file: Path, text: bytes) -> Iterator[object]:
    if file.suffix != ".json":
        return yaml_reader.read_documents(text)
    return iter([orjson.loads(text)] if text.strip() else [])


class _Fault(NamedTuple):
    """A problem before its line is known."""

    path: yaml_reader.Path
    subject: str
    reason: str
    is_partial: bool = False


class _Reader:
    """Collects what the documents of one file hold."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._objects: dict[ObjectKey, PlacedObject] = {}
        self._refused: set[ObjectKey] = set()
        self._has_unnamed = False
        self._faults: list[_Fault] = []
        self._fault_count = 0
        self._other_kinds: set[str] = set()

    def read(self, raw: object, path: yaml_reader.Path, kind: str = "", depth: int = 0) -> None:
        """Read one object or list of objects; ``kind`` is that of a typed list's items, which need not say it."""
        if raw is None:
            return  # an empty document
        if not isinstance(raw, dict):
            self._fault_unnamed(path, "holds something that is no object; write one with apiVersion, kind and metadata")
            return
        given = raw.get("kind", kind)
        if not isinstance(given, str) or not given:
            self._fault_unnamed(path, "holds an object without kind; write its apiVersion and kind")
        elif given.endswith("List") and "items" in raw:
            self._read_list(raw, path, given.removesuffix("List"), depth)
        elif given in _DECODERS and _group(raw, given) == _DECODERS[given].group:
            self._read_object(raw, path, given)
        else:
            self._other_kinds.add(given)

    def _read_list(self, raw: Mapping[str, object], path: yaml_reader.Path, kind: str, depth: int) -> None:
        items = raw["items"]
        if depth >= _DEEPEST_LIST:
            self._fault_unnamed(path, f"holds lists in lists, more than {_DEEPEST_LIST} deep; write them flat")
        elif isinstance(items, list):
            for index, item in enumerate(_in_turn(items)):
                self.read(item, (*path, "items", index), kind, depth + 1)
        elif items is not None:
            self._fault_unnamed((*path, "items"), "holds a list whose items are no list; write one")

    def _read_object(self, raw: Mapping[str, object], path: yaml_reader.Path, kind: str) -> None:
        try:
            newest = _DECODERS[kind].decode(raw)
        except ObjectError as error:
            key = ObjectKey(kind, error.name)
            if key.name.name.startswith("("):  # what stands for a name that could not be read
                self._fault_unnamed(path, str(error))
            else:
                self._refused.add(key)
                self._fault(_Fault((*path, *_field_path(error.field)), str(key), str(error)))
            return
        name = ObjectName("", newest.name) if isinstance(newest, Node) else newest.name
        key = ObjectKey(kind, name)
        if key in self._objects:
            reason = f"{key}: is in this file twice, the first counts; remove one"
            self._fault(_Fault(path, str(key), reason))
            return
        if not isinstance(newest, Ignored) and newest.problems:
            for sentence in newest.problems:
                self._fault(_Fault(path, str(key), sentence, is_partial=True))
            if self._fault_count == len(self._faults):
                # They are told with file and line; whoever plans the Service need not tell them again.
                newest = replace(newest, problems=())
        self._objects[key] = PlacedObject(newest, path)

    def _fault_unnamed(self, path: yaml_reader.Path, reason: str) -> None:
        self._has_unnamed = True
        self._fault(_Fault(path, "", reason))

    def _fault(self, fault: _Fault) -> None:
        self._fault_count += 1
        if len(self._faults) < MOST_PROBLEMS:
            self._faults.append(fault)

    def content(self, text: bytes) -> FileContent:
        """Return all that was read, the problems with their lines."""
        lines = yaml_reader.find_lines(text, [fault.path for fault in self._faults]) if self._faults else {}
        problems = [
            ManifestProblem(self._file, lines.get(fault.path, 0), fault.subject, fault.reason, fault.is_partial)
            for fault in self._faults
        ]
        if self._fault_count > len(problems):
            rest = f"has {self._fault_count - len(problems)} more problems; mend the first ones"
            problems.append(ManifestProblem(self._file, 0, "", rest))
        return FileContent(
            objects=self._objects,
            refused=frozenset(self._refused - self._objects.keys()),
            has_unnamed=self._has_unnamed,
            problems=tuple(problems),
            other_kinds=frozenset(self._other_kinds),
        )


def _in_turn(items: list[object]) -> Iterator[object]:
    """Yield a list's items; of a long list, which is emptied, only some are unpacked at a time.

    A raw object takes ten times the memory of its model, and the texts that models keep would pin the memory around
    them, all over a list that is there as a whole.
    """
    if len(items) <= _AT_ONCE:
        yield from items
        return
    packed = [marshal.dumps(items[start : start + _AT_ONCE]) for start in range(0, len(items), _AT_ONCE)]
    items.clear()
    packed.reverse()
    while packed:
        yield from marshal.loads(packed.pop())  # noqa: S302 - packed three lines above


class _Decoder(NamedTuple):
    group: str
    decode: Callable[[object], KubernetesObject]


_DECODERS: Final[Mapping[str, _Decoder]] = {
    "Service": _Decoder("", decode_service),
    "EndpointSlice": _Decoder("discovery.k8s.io", decode_endpoint_slice),
    "Node": _Decoder("", decode_node),
    "ServiceCIDR": _Decoder("networking.k8s.io", decode_service_cidr),
}


def _group(raw: Mapping[str, object], kind: str) -> str:
    """Return an object's API group, for others have kinds named Service too; its version is the decoder's to check."""
    version = raw.get("apiVersion")
    if not isinstance(version, str):
        return _DECODERS[kind].group
    return version.rpartition("/")[0]


def _field_path(field: str) -> yaml_reader.Path:
    """Return ``spec.ports[2].port`` as a path."""
    return tuple(int(index) if index else name for name, index in _FIELD_PART.findall(field))
