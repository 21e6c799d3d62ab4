# SPDX-License-Identifier: Apache-2.0
"""Turns the return codes of libbpf and bpf(2) into exceptions, in one place."""

from __future__ import annotations

import errno
import os

ENOTSUPP = 524
"""The kernel's internal "not supported", which bpf(2) lets through; unknown to :mod:`errno`."""

LIBBPF_ERRORS = 4000
"""libbpf's own error numbers start here (LIBBPF_ERRNO__START)."""


class KernelError(OSError):
    """A call into the kernel failed. ``errno`` tells why; the message names the call and its object."""

    def __init__(self, error_number: int, action: str) -> None:
        """Take what was tried as ``action``, e.g. ``pin map frontends``."""
        super().__init__(error_number, f"cannot {action}: {_reason(error_number)}")
        self.action = action

    def __str__(self) -> str:
        """Return the sentence with the symbolic errno, e.g. ``cannot pin …: File exists (EEXIST)``."""
        symbol = errno.errorcode.get(self.errno or 0, str(self.errno))
        return f"{self.strerror} ({symbol})"


def _reason(error_number: int) -> str:
    if error_number == ENOTSUPP:
        return "not supported by this kernel"
    if error_number >= LIBBPF_ERRORS:
        return "libbpf can make no sense of it"
    return os.strerror(error_number)


def check(result: int, action: str) -> int:
    """Return a result that is not negative.

    Raises:
        KernelError: the result is a negative errno, as libbpf 1.x returns it.
    """
    if result < 0:
        raise KernelError(-result, action)
    return result
