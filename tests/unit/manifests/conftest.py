# SPDX-License-Identifier: Apache-2.0
"""A folder for manifests, and what watches it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.manifests import ManifestFolder
from tests.unit.manifests.looking import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a folder for manifests."""
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def clock() -> Clock:
    """Return the folder's clock."""
    return Clock()


@pytest.fixture
def folder(path: Path, clock: Clock) -> Iterator[ManifestFolder]:
    """Watch the folder."""
    with ManifestFolder(path, clock) as watched:
        yield watched
