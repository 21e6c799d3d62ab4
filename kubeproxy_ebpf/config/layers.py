# SPDX-License-Identifier: Apache-2.0
"""Flags over file over defaults: values from several places to one value per key, every one of them checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from kubeproxy_ebpf.config.errors import InvalidItemsError, InvalidValueError
from kubeproxy_ebpf.config.keys import BY_NAME, Key

T = TypeVar("T")

FilePath = tuple[str | int, ...]
"""Keys and indices that lead to a value in the file."""


class Given(NamedTuple):
    """A value that somebody wrote."""

    raw: object
    name: str
    """The key as its author knows it: ``auditPeriod``, ``--audit-period``, ``iptables.syncPeriod``."""
    path: FilePath | None
    """None: it was a flag."""


class Fault(NamedTuple):
    """Something wrong, before its line is known."""

    path: FilePath | None
    what: str


Layer = Mapping[str, Given]
"""Values by the name of the key that they are for."""


class Values:
    """One checked value per key."""

    def __init__(self) -> None:
        """Start with the keys' defaults."""
        self._values: dict[str, object] = {}
        self._given: dict[str, Given] = {}

    def offer(self, name: str, given: Given, value: object) -> None:
        """Take over a value, unless an earlier one goes before it."""
        if name not in self._given:
            self._values[name] = value
            self._given[name] = given

    def get(self, key: Key[T]) -> T | None:
        """Return a key's value, else its default."""
        if key.name in self._values:
            return cast("T", self._values[key.name])
        return key.default

    def require(self, key: Key[T]) -> T:
        """Return the value of a key that has a default of its own."""
        value = self.get(key)
        if value is None:
            msg = f"key {key.name} has no default"
            raise LookupError(msg)
        return value

    def given(self, key: Key[Any]) -> Given | None:
        """Return what was written for a key."""
        return self._given.get(key.name)


def read_layers(layers: Sequence[Layer]) -> tuple[Values, list[Fault]]:
    """Check every value of every layer, also those that are overridden; earlier layers win."""
    values = Values()
    faults: list[Fault] = []
    for layer in layers:
        for name, given in layer.items():
            try:
                parsed = BY_NAME[name].kind.parse(given.raw)
            except InvalidValueError as error:
                faults.append(_fault(given, error))
            except InvalidItemsError as error:
                faults += [_fault(given, one) for one in error.errors]
            else:
                values.offer(name, given, parsed)
    return values, faults


def flag_layer(flags: Mapping[str, object], keys: Iterable[Key[Any]]) -> Layer:
    """Return the flags that were used, by parameter name, as a layer. Lists and mappings come as texts with commas."""
    layer: dict[str, Given] = {}
    for key in keys:
        raw = flags.get(key.parameter)
        if raw is None:
            continue
        if key.kind.is_list or key.kind.is_mapping:
            parts = [part.strip() for text in cast("Sequence[str]", raw) for part in text.split(",") if part.strip()]
            raw = parts if key.kind.is_list else dict(_assignment(part) for part in parts)
        layer[key.name] = Given(raw, key.flag, None)
    return layer


def _assignment(text: str) -> tuple[str, object]:
    name, _, number = text.partition("=")
    return name.strip(), int(number) if number.strip().isdecimal() else number


def _fault(given: Given, error: InvalidValueError) -> Fault:
    if error.item is None:
        return Fault(given.path, f"{given.name}: {error.reason}")
    path = given.path
    if path is not None:
        path = (*path, error.item)
    item = f"[{error.item}]" if isinstance(error.item, int) else ""
    return Fault(path, f"{given.name}{item}: {error.reason}")
