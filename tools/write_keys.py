# SPDX-License-Identifier: Apache-2.0
"""Puts the table of configuration keys into docs/operations.md: ``python -m tools.write_keys``."""

from __future__ import annotations

from pathlib import Path

from kubeproxy_ebpf.config.reference import put_keys

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"

if __name__ == "__main__":
    OPERATIONS.write_text(put_keys(OPERATIONS.read_text()))
