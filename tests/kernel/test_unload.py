# SPDX-License-Identifier: Apache-2.0
"""Unload leaves nothing: the machine's listings of programs, maps and links are what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.errors import BpffsError, NotLoadedError
from tests.kernel.conftest import Loader
from tests.kernel.state import Listing, attached_programs, eventually


def test_unload_leaves_nothing(load: Loader, scratch_cgroup: Path, bpffs: Path, pin_folder: Path) -> None:
    """Before, while it is loaded, and after an upgrade with larger maps: in the end nothing is new."""
    files = sorted(bpffs.iterdir())
    before = Listing.now()
    load().close()
    load(services=128).close()
    loaded = Listing.now().added_since(before)
    assert all(loaded)
    assert loader.unload(pin_folder)
    assert attached_programs(scratch_cgroup) == {}
    assert sorted(bpffs.iterdir()) == files
    # The kernel frees what nobody refers to in its own time. Other tests may run at once, so only what was ours counts.
    assert eventually(lambda: not any(now & ours for now, ours in zip(Listing.now(), loaded, strict=True)))


def test_unload_of_nothing_says_so(pin_folder: Path) -> None:
    """There is nothing to do where nothing is loaded, and nothing is made."""
    assert not loader.unload(pin_folder)
    assert not pin_folder.exists()
    with pytest.raises(NotLoadedError, match="kubeproxy-ebpf run"):
        loader.open_pinned(pin_folder)


def test_unload_removes_other_layouts_too(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """It is the remedy for layouts that this version does not know, so it must not need to know them."""
    load().close()
    (pin_folder / "layout_1").rename(pin_folder / "layout_7")
    assert loader.unload(pin_folder)
    assert attached_programs(scratch_cgroup) == {}
    assert not pin_folder.exists()


def test_unload_leaves_foreign_files_and_says_so(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """What somebody else put into the folder is named and stays; everything of ours goes."""
    load().close()
    (pin_folder / "precious").mkdir()
    with pytest.raises(BpffsError, match="precious"):
        loader.unload(pin_folder)
    assert attached_programs(scratch_cgroup) == {}
    assert [path.name for path in pin_folder.iterdir()] == ["precious"]
