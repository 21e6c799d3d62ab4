# SPDX-License-Identifier: Apache-2.0
"""Imports libraries without what they would bring along: the agent's memory is some of a node's, on every node."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec


@contextmanager
def as_if_absent(*names: str) -> Iterator[None]:
    """Import something as if these, which it can do without, were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: importing it fails
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def submodules_only(package: str) -> Iterator[None]:
    """Import parts of a package that is not imported yet, without what the package itself would import."""
    spec = find_spec(package)
    if package in sys.modules or spec is None:
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def without_authorities() -> Iterator[None]:
    """Import something that makes a TLS context at once, without reading all the system's authorities for it."""
    before = ssl.create_default_context
    ssl.create_default_context = lambda *_, **__: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        yield
    finally:
        ssl.create_default_context = before
