# SPDX-License-Identifier: Apache-2.0
"""How fast the kernel's jiffies go is found out."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath.jiffies import CHOICES, JiffiesRate


def configured() -> int | None:
    """Return what the kernel was built with, where it says so."""
    for path in (Path("/proc/config.gz"), Path("/boot", f"config-{os.uname().release}")):
        if path.exists():
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found = re.search(rb"^CONFIG_HZ=(\d+)$", text, re.MULTILINE)
            return int(found[1]) if found else None
    return None


def test_the_rate_is_one_that_kernels_have() -> None:
    """Twice the same."""
    first, second = JiffiesRate().read(), JiffiesRate().read()
    assert first == second
    assert first in CHOICES


def test_the_rate_is_the_configured_one() -> None:
    """Where the kernel tells what it was built with."""
    expected = configured()
    if expected is None:
        pytest.skip("kernel: neither /proc/config.gz nor /boot tells how it was built")
    assert JiffiesRate().read() == expected
