# SPDX-License-Identifier: Apache-2.0
"""libbpf's printed messages: collected for the error that follows, and a structlog debug event each.

Where the verifier refuses a program its log comes this way too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from kubeproxy_ebpf.datapath.libbpf._libbpf import ffi, lib

if TYPE_CHECKING:
    from kubeproxy_ebpf.datapath.libbpf._libbpf import CData

_collector = threading.local()
_log = structlog.get_logger(__name__)


@ffi.def_extern()
def message_received(_level: int, text: CData) -> None:
    """Take one message of libbpf, on the thread that called into it."""
    message = ffi.string(text).decode(errors="replace").rstrip("\n")
    lines: list[str] | None = getattr(_collector, "lines", None)
    if lines is not None:
        lines.extend(message.splitlines())
    _log.debug("libbpf_message", text=message)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what libbpf prints on this thread, line by line, and keep it off stderr."""
    lib.messages_redirect()
    lines: list[str] = []
    _collector.lines = lines
    try:
        yield lines
    finally:
        _collector.lines = None
