# SPDX-License-Identifier: Apache-2.0
"""Typed reading of one field of a raw mapping. null counts as absent, as it does in Kubernetes.

All of them raise :class:`FieldError` when the value has another type than JSON's for it, or is out of bounds.
"""

from __future__ import annotations

import functools
import re
import sys
from types import TracebackType
from typing import Any

from kubeproxy_ebpf.decode.errors import FieldError, show
from kubeproxy_ebpf.model.objects import Protocol

Raw = dict[str, Any]

LONGEST_LABEL = 63
"""Bytes of a DNS label (RFC 1123); with its NUL it fills a field of ``struct service_name``."""
LONGEST_SUBDOMAIN = 253
"""Bytes of a DNS name (RFC 1123), which names nodes and EndpointSlices."""
LONGEST_TEXT = 256
"""Bytes of any other text that is kept."""
HIGHEST_PORT = 65535

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", re.ASCII)
_PROTOCOLS = {protocol.name: protocol for protocol in Protocol}


class Inside:
    """Gives the errors raised inside the path of the field they were raised below."""

    __slots__ = ("_field",)

    def __init__(self, field: str) -> None:
        """Know the field."""
        self._field = field

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, FieldError):
            raise error.below(self._field) from None


def as_mapping(value: object) -> Raw:
    """Return a mapping; null is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FieldError("", f"is {show(value)}", "write a mapping of fields")
    return value


def mapping(raw: Raw, key: str) -> Raw:
    """Return a mapping field, empty if absent."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FieldError(key, f"is {show(value)}", "write a mapping of fields")
    return value


def sequence(raw: Raw, key: str, most: int) -> list[Any]:
    """Return a list field of at most ``most`` entries, empty if absent."""
    value = raw.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise FieldError(key, f"is {show(value)}", "write a list")
    if len(value) > most:
        raise FieldError(key, f"has {len(value)} entries", f"write at most {most}")
    return value


def text(raw: Raw, key: str, default: str = "", longest: int = LONGEST_TEXT) -> str:
    """Return a text field."""
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise FieldError(key, f"is {show(value)}", "write a text, in quotes if it looks like a number or a date")
    if len(value) > longest:
        raise FieldError(key, f"is {len(value)} characters long", f"write at most {longest}")
    return value


def boolean(raw: Raw, key: str, *, default: bool) -> bool:
    """Return a boolean field."""
    value = raw.get(key)
    if value is None:
        return default
    if value is True or value is False:
        return bool(value)
    raise FieldError(key, f"is {show(value)}", "write true or false")


def integer(raw: Raw, key: str, least: int, most: int, default: int | None = None) -> int:
    """Return an integer field within bounds; without a default it has to be there."""
    value = raw.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        reason = "is missing" if value is None else f"is {show(value)}"
        raise FieldError(key, reason, f"write a number from {least} to {most}")
    return value


def port_number(raw: Raw, key: str) -> int:
    """Return a port from 1 to 65535, which has to be there."""
    return integer(raw, key, 1, HIGHEST_PORT)


def protocol(raw: Raw) -> Protocol:
    """Return the field ``protocol``: TCP if absent."""
    value = raw.get("protocol")
    if value is None:
        return Protocol.TCP
    found = _PROTOCOLS.get(value) if isinstance(value, str) else None
    if found is None:
        raise FieldError("protocol", f"is {show(value)}", "write TCP, UDP or SCTP")
    return found


def port_name(raw: Raw) -> str:
    """Return the field ``name`` of a port: a DNS label, or empty."""
    value = text(raw, "name", longest=LONGEST_LABEL)
    if value and not _LABEL.fullmatch(value):
        raise FieldError("name", f"is {show(value)}", "write a DNS label: lower-case letters, digits and '-'")
    return sys.intern(value)


def label(raw: Raw, key: str, default: str | None = None) -> str:
    """Return a DNS label (RFC 1123), interned; without a default it has to be there."""
    value = text(raw, key, default or "", LONGEST_LABEL)
    if not _LABEL.fullmatch(value):
        raise FieldError(key, f"is {show(value)}", "write a DNS label: lower-case letters, digits and '-'")
    return sys.intern(value)


@functools.lru_cache(maxsize=8192)
def is_subdomain(value: str) -> bool:
    """Whether a text is a DNS name (RFC 1123)."""
    return len(value) <= LONGEST_SUBDOMAIN and _SUBDOMAIN.fullmatch(value) is not None


def subdomain(raw: Raw, key: str) -> str:
    """Return a DNS name (RFC 1123), interned: what nodes and most objects are named. It has to be there."""
    value = raw.get(key)
    if not isinstance(value, str) or not is_subdomain(value):
        raise FieldError(key, f"is {show(value)}", "write a DNS name: lower-case letters, digits, '-' and '.'")
    return sys.intern(value)
