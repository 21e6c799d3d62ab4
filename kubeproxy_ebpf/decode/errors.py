# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a raw object or a field of it, in words."""

from __future__ import annotations

import reprlib

from kubeproxy_ebpf.model.objects import ObjectName


class ObjectError(ValueError):
    """A raw object that cannot be used at all. The message names object, field and remedy."""

    def __init__(self, kind: str, name: ObjectName, field: str, reason: str, remedy: str) -> None:
        """Remember the object's kind and name, the path of the field, what is wrong with it, and the remedy."""
        super().__init__(f"{kind} {name}: {field} {reason}; {remedy}")
        self.kind = kind
        self.name = name
        self.field = field
        self.reason = reason
        self.remedy = remedy


class FieldError(Exception):
    """A field that cannot be used; its path is relative to what was being read. Never leaves this package."""

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        """Remember the path, what is wrong (with the field as subject), and the remedy."""
        super().__init__(f"{field} {reason}; {remedy}")
        self.field = field
        self.reason = reason
        self.remedy = remedy

    def below(self, parent: str) -> FieldError:
        """Return the same error seen from one level up."""
        return FieldError(f"{parent}.{self.field}" if self.field else parent, self.reason, self.remedy)


def show(value: object) -> str:
    """Return a value as text fit for a message: short, on one line, without control characters."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 60
    shortener.maxdict = shortener.maxlist = 3
    shortener.maxlevel = 2
    return shortener.repr(value)
