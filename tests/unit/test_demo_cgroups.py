# SPDX-License-Identifier: Apache-2.0
"""How the demo lists a tree of cgroups whose Pods come and go meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

from demo import cgroups


def test_a_folder_that_goes_away_while_it_is_listed_is_left_out(tmp_path: Path) -> None:
    """The rest is listed, a parent before its children."""
    (tmp_path / "node" / "kept").mkdir(parents=True)
    passing = [tmp_path / "node" / f"passing-{number}" for number in range(20)]
    ended = threading.Event()
    churn = threading.Thread(target=_come_and_go, args=(passing, ended))
    churn.start()
    try:
        listings = [cgroups.tree(tmp_path) for _ in range(300)]
    finally:
        ended.set()
        churn.join()
    constant = [tmp_path, tmp_path / "node", tmp_path / "node" / "kept"]
    assert all([folder for folder in listing if folder not in passing] == constant for listing in listings)
    assert any(set(passing) & set(listing) for listing in listings)


def test_the_processes_of_a_cgroup_that_is_gone_are_none(tmp_path: Path) -> None:
    """Nothing is listed, and nothing raised."""
    assert list(cgroups.processes(tmp_path / "gone")) == []


def _come_and_go(folders: list[Path], ended: threading.Event) -> None:
    while not ended.is_set():
        for folder in folders:
            folder.mkdir()
        for folder in folders:
            folder.rmdir()
