# SPDX-License-Identifier: Apache-2.0
"""The part that all kinds of objects have in common: apiVersion, kind and metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kubeproxy_ebpf.decode import fields
from kubeproxy_ebpf.decode.errors import FieldError, ObjectError, show
from kubeproxy_ebpf.decode.fields import Raw
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.model.problems import Problems

_Entry = TypeVar("_Entry")
_Model = TypeVar("_Model")

_UNKNOWN = ObjectName("", "(without a name)")


@dataclass(slots=True)
class Identity:
    """Who a raw object is, and where the problems found in it are collected."""

    kind: str
    name: ObjectName
    uid: str
    metadata: Raw
    labels: Raw
    annotations: Raw
    problems: Problems

    def problem(self, field: str, error: FieldError) -> None:
        """Note what an error says of the part at ``field``, which is left out."""
        self.problems.add(str(error.below(field)))

    def usable(self, path: str, raw: Raw, most: int, read: Callable[[object], _Entry | None]) -> list[_Entry]:
        """Read the entries of the list at ``path``, whose last part is its key in ``raw``.

        An entry that cannot be used is a problem and does not lose the others; one read as None does not count.
        """
        parent, _, key = path.rpartition(".")
        if raw.get(key) is None:
            return []
        entries: list[_Entry] = []
        try:
            values = fields.sequence(raw, key, most)
        except FieldError as error:
            raise (error.below(parent) if parent else error) from None
        for index, value in enumerate(values):
            try:
                entry = read(value)
            except FieldError as error:
                self.problem(f"{path}[{index}]", error)
            else:
                if entry is not None:
                    entries.append(entry)
        return entries


def read_object(
    kind: str, api_version: str, raw: object, read: Callable[[Raw, Identity], _Model], *, namespaced: bool
) -> _Model:
    """Read who the object is, then the rest of it; every error about a field becomes one that names the object.

    Raises:
        ObjectError: the object is not of this kind, or a field of it cannot be used.
    """
    name = _UNKNOWN
    try:
        body = fields.as_mapping(raw)
        metadata = fields.mapping(body, "metadata")
        with fields.Inside("metadata"):
            namespace = fields.label(metadata, "namespace", "default") if namespaced else ""
            name = ObjectName(namespace, fields.subdomain(metadata, "name"))
        _check(body, "apiVersion", api_version)
        _check(body, "kind", kind)
        with fields.Inside("metadata"):
            identity = Identity(
                kind=kind,
                name=name,
                uid=fields.text(metadata, "uid"),
                metadata=metadata,
                labels=fields.mapping(metadata, "labels"),
                annotations=fields.mapping(metadata, "annotations"),
                problems=Problems(kind, name),
            )
        return read(body, identity)
    except FieldError as error:
        raise ObjectError(kind, name, error.field or "it", error.reason, error.remedy) from None


def _check(body: Raw, key: str, expected: str) -> None:
    """Items of a list carry neither kind nor version; where they are given they must be right."""
    if body.get(key) == expected:
        return
    given = fields.text(body, key, expected)
    if given != expected:
        raise FieldError(key, f"is {show(given)}", f"write {expected}")
