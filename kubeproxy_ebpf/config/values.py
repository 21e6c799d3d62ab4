# SPDX-License-Identifier: Apache-2.0
"""Plain values, as YAML or a flag gives them, to typed ones: each kind of value, and how to say what it takes.

Every parser raises :class:`InvalidValueError` with the value and the remedy, or :class:`InvalidItemsError` with several
of them; the caller knows the key and the place.
"""

from __future__ import annotations

import enum
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Generic, TypeVar

from kubeproxy_ebpf.config.errors import InvalidItemsError, InvalidValueError, suggest
from kubeproxy_ebpf.datapath.errors import MapSizeError
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.model.address import Address, Prefix, parse_address, parse_prefix
from kubeproxy_ebpf.model.settings import NodePortKeyword

MAP_NAMES: Final = tuple(field.name for field in fields(MapSizes))
"""Maps whose size an operator may choose."""

T = TypeVar("T")
_Choice = TypeVar("_Choice", bound=enum.Enum)

_UNITS: Final[Mapping[str, float]] = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|m|s))+", re.ASCII)
_DURATION_PART: Final = re.compile(r"([0-9.]+)(h|ms|m|s)", re.ASCII)
_NODE_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", re.ASCII)
_URL: Final = re.compile(r"https?://[^/?#@\s]+(/[^?#\s]*)?", re.ASCII)
_LONGEST_NODE_NAME: Final = 253  # RFC 1123, as Kubernetes checks it
_LONGEST_INTERFACE_NAME: Final = 15  # IFNAMSIZ less its NUL
_LONGEST_PERIOD: Final = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T]):
    """A kind of value."""

    expects: str
    """What to write, for people."""
    metavar: str
    """The same in a word, for ``--help``."""
    parse: Callable[[object], T]
    """From YAML's value. Raises :class:`InvalidValueError`, or :class:`InvalidItemsError`."""
    is_switch: bool = False
    is_list: bool = False
    """As a flag: repeated, or separated by commas."""
    is_mapping: bool = False
    """As a flag: ``name=value``, repeated or separated by commas."""


def show(value: object) -> str:
    """Return a value as text for a message: short and on one line."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 80
    return shortener.repr(value)


def _text(raw: object, expects: str) -> str:
    if not isinstance(raw, str):
        msg = f"{show(raw)} is not text; write {expects}" + (", in quotes" if isinstance(raw, int | float) else "")
        raise InvalidValueError(msg)
    return raw.strip()


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        msg = f"{show(raw)} is not a boolean; write true or false"
        raise InvalidValueError(msg)
    return raw


def _path(raw: object) -> Path:
    text = _text(raw, "a path")
    if not text or "\0" in text:
        msg = f"{show(raw)} is not a path; write one, or leave the key out"
        raise InvalidValueError(msg)
    return Path(text)


def _node_name(raw: object) -> str:
    text = _text(raw, "the Node object's name").lower()
    if len(text) > _LONGEST_NODE_NAME or not _NODE_NAME.fullmatch(text):
        msg = f"{show(raw)} is not a node name; write the Node object's name: letters, digits, '-' and '.'"
        raise InvalidValueError(msg)
    return text


def _interface(raw: object) -> str:
    text = _text(raw, "an interface name")
    if not text or len(text) > _LONGEST_INTERFACE_NAME or "/" in text or any(char.isspace() for char in text):
        msg = f"{show(raw)} is not an interface name; write 1 to {_LONGEST_INTERFACE_NAME} characters, no '/' or blanks"
        raise InvalidValueError(msg)
    return text


def _address(raw: object) -> Address:
    text = _text(raw, "an IP address")
    try:
        return parse_address(text)
    except ValueError:
        msg = f"{show(raw)} is not an IP address; write e.g. 192.0.2.10 or 2001:db8::10"
        raise InvalidValueError(msg) from None


def _prefix(raw: object) -> Prefix:
    text = _text(raw, "a CIDR")
    try:
        return parse_prefix(text)
    except ValueError:
        msg = f"{show(raw)} is not a CIDR; write e.g. 10.0.0.0/8 or fd00::/64" + _single(text)
        raise InvalidValueError(msg) from None


def _single(text: str) -> str:
    """Return how to write a lone address as a CIDR."""
    try:
        address = parse_address(text)
    except ValueError:
        return ""
    return f", or {text}/{128 if ':' in text else 32} for this address alone" if address else ""


def _node_port_address(raw: object) -> Prefix | NodePortKeyword:
    if isinstance(raw, str):
        for keyword in NodePortKeyword:
            if raw.strip() == keyword.value:
                return keyword
    try:
        return _prefix(raw)
    except InvalidValueError as error:
        words = [keyword.value for keyword in NodePortKeyword]
        hint = suggest(raw, words) if isinstance(raw, str) else ""
        msg = f"{error.reason}, or one of {', '.join(words)}{hint}"
        raise InvalidValueError(msg) from None


def parse_duration(raw: object) -> float:
    """Return the seconds of a duration as Go writes it: ``30s``, ``1m30s``, ``1.5h``."""
    if isinstance(raw, str) and _DURATION.fullmatch(raw.strip()):
        try:
            return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(raw))
        except ValueError:
            pass  # "1.2.3s"
    unit = f", e.g. {raw}s" if isinstance(raw, int) and not isinstance(raw, bool) else ""
    msg = f"{show(raw)} is not a duration; write a number with its unit (ms, s, m, h){unit or ', e.g. 30s or 1m30s'}"
    raise InvalidValueError(msg)


def _map_sizes(raw: object) -> MapSizes:
    if not isinstance(raw, dict):
        msg = f"{show(raw)} is not a mapping; write map names with their sizes, e.g. {{slots: 524288}}"
        raise InvalidValueError(msg)
    errors = [error for name, size in raw.items() if (error := _map_size_error(name, size)) is not None]
    if errors:
        raise InvalidItemsError(errors)
    return MapSizes(**raw)


def _map_size_error(name: str, size: object) -> InvalidValueError | None:
    if name not in MAP_NAMES:
        hint = suggest(str(name), MAP_NAMES)
        return InvalidValueError(f"{show(name)} is not a map with a size; there are {', '.join(MAP_NAMES)}{hint}", name)
    if isinstance(size, bool) or not isinstance(size, int):
        return InvalidValueError(f"{name}: {show(size)} is not a number; write how many entries", name)
    try:
        MapSizes(**{name: size})
    except MapSizeError as error:
        return InvalidValueError(str(error), name)
    return None


BOOLEAN: Final = Kind(expects="true or false", metavar="", parse=_boolean, is_switch=True)
PATH: Final = Kind(expects="a path", metavar="PATH", parse=_path)
NODE_NAME: Final = Kind(expects="the Node object's name", metavar="NAME", parse=_node_name)
INTERFACE: Final = Kind(expects="an interface name", metavar="NAME", parse=_interface)
ADDRESS: Final = Kind(expects="an IP address", metavar="ADDRESS", parse=_address)


def period(least: float) -> Kind[float]:
    """Return the kind of a duration of at least so many seconds."""

    def parse(raw: object) -> float:
        seconds = parse_duration(raw)
        if not least <= seconds <= _LONGEST_PERIOD:
            msg = f"{show(raw)} is out of bounds; write a duration from {least:g}s to {_LONGEST_PERIOD / 3600:g}h"
            raise InvalidValueError(msg)
        return seconds

    return Kind(expects="a duration, e.g. `30s` or `1m30s`", metavar="DURATION", parse=parse)


def one_of(choices: type[_Choice]) -> Kind[_Choice]:
    """Return the kind of a word out of an enumeration's values."""
    words = [member.value for member in choices if member.value]

    def parse(raw: object) -> _Choice:
        if isinstance(raw, str) and raw in words:
            return choices(raw)
        hint = suggest(raw, words) if isinstance(raw, str) else ""
        msg = f"{show(raw)} is unknown; write one of {', '.join(words)}{hint}"
        raise InvalidValueError(msg)

    return Kind(expects=", ".join(f"`{word}`" for word in words), metavar="|".join(words), parse=parse)


def _url(raw: object) -> str:
    text = _text(raw, "a URL").rstrip("/")
    if not _URL.fullmatch(text):
        msg = f"{show(raw)} is not a URL; write scheme, host and port, e.g. https://10.0.0.1:6443"
        raise InvalidValueError(msg)
    return text


def _list_of(
    parse_item: Callable[[object], T],
    expects: str,
    most: int | None,
    example: str = "10.0.0.0/8",
    metavar: str = "CIDR,...",
) -> Kind[tuple[T, ...]]:
    def parse(raw: object) -> tuple[T, ...]:
        if not isinstance(raw, list):
            msg = f"{show(raw)} is not a list; write {expects}, e.g. [{raw if isinstance(raw, str) else example}]"
            raise InvalidValueError(msg)
        if most is not None and len(raw) > most:
            msg = f"it has {len(raw)} entries; write at most {most}"
            raise InvalidValueError(msg)
        items, errors = [], []
        for index, item in enumerate(raw):
            try:
                items.append(parse_item(item))
            except InvalidValueError as error:
                errors.append(InvalidValueError(error.reason, index))
        if errors:
            raise InvalidItemsError(errors)
        return tuple(dict.fromkeys(items))

    return Kind(expects=expects, metavar=metavar, parse=parse, is_list=True)


def prefixes(most: int | None = None) -> Kind[tuple[Prefix, ...]]:
    """Return the kind of a list of CIDRs."""
    return _list_of(_prefix, "a list of CIDRs" + (f" (at most {most})" if most else ""), most)


NODE_PORT_ADDRESSES: Final = _list_of(
    _node_port_address, "a list of CIDRs and of the words `primary`, `localhost`, `all`", None
)

INTERFACE_PATTERNS: Final = _list_of(
    _interface, "a list of interface names, with `*` and `?` as in file names", None, example="eth*", metavar="NAME,..."
)

URLS: Final = _list_of(_url, "a list of URLs", None, example="https://10.0.0.1:6443", metavar="URL,...")

MAP_SIZES: Final = Kind(
    expects="a mapping from names of maps to numbers of entries",
    metavar="MAP=ENTRIES,...",
    parse=_map_sizes,
    is_mapping=True,
)
