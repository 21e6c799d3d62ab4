# SPDX-License-Identifier: Apache-2.0
"""What becomes of errors: those that this package has named are one message, others keep their traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = "kubeproxy_ebpf"


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Print the errors that this package has named, and exit with 1: they say what to do, a traceback hides it."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] != _PACKAGE:
            raise
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from error
