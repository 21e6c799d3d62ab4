# SPDX-License-Identifier: Apache-2.0
"""What kernel tests stand on beside :mod:`tests.kernel.scratch`: programs and maps, at a cgroup of the test's own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.loader import Datapath
from kubeproxy_ebpf.datapath.map_sizes import MapSizes

KERNEL_TESTS = Path(__file__).parent
OBJECTS = KERNEL_TESTS / "objects"

CompileObject = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder as a kernel test."""
    for item in items:
        if item.path.is_relative_to(KERNEL_TESTS):
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session")
def compile_object(tmp_path_factory: pytest.TempPathFactory) -> CompileObject:
    """Compile a BPF object of these tests: ``compile_object("maps.bpf.c", "ANSWER=2")``, with macros."""
    folder = tmp_path_factory.mktemp("objects")

    def compile_(source: str, *macros: str) -> Path:
        target = folder / f"{'_'.join((source.removesuffix('.bpf.c'), *macros)).replace('=', '_')}.bpf.o"
        if not target.exists():
            machine = f"-I/usr/include/{os.uname().machine}-linux-gnu"
            flags = ("-g", "-O2", "-target", "bpf", "-mcpu=v2", machine, f"-I{KERNEL_TESTS.parent.parent / 'bpf_src'}")
            defines = tuple(f"-D{macro}" for macro in macros)
            subprocess.run(("clang", *flags, *defines, "-c", OBJECTS / source, "-o", target), check=True)
        return target

    return compile_


SMALL = MapSizes(
    addresses=64,
    frontends=64,
    services=64,
    slots=64,
    backends=64,
    origins=64,
    source_ranges=64,
    service_names=64,
    affinity=64,
    peer_names=64,
    socket_origins_overflow=64,
    flows=64,
    opening_flows=64,
    service_counters=64,
    events=4096,
)
"""Maps that are full soon and made quickly."""

Loader = Callable[..., Datapath]


@pytest.fixture
def pin_folder(bpffs: Path) -> Path:
    """Return where this test's agent pins; it does not exist yet."""
    return bpffs / "kubeproxy-ebpf"


@pytest.fixture
def load(pin_folder: Path, scratch_cgroup: Path, compile_object: CompileObject) -> Iterator[Loader]:
    """Load the maps of these tests: ``load("ANSWER=0", services=128)`` with macros and sizes; closed at the end."""
    loaded: list[Datapath] = []

    def load_(*macros: str, cgroup: Path = scratch_cgroup, lock_timeout: float = 0, **sizes: int) -> Datapath:
        loaded.append(
            loader.load(
                pin_folder=pin_folder,
                cgroup=cgroup,
                sizes=dataclasses.replace(SMALL, **sizes),
                lock_timeout=lock_timeout,
                object_path=compile_object("maps.bpf.c", *macros),
            )
        )
        return loaded[-1]

    yield load_
    for datapath in loaded:
        datapath.close()


@pytest.fixture
def datapath(pin_folder: Path, scratch_cgroup: Path) -> Iterator[Datapath]:
    """Load the real programs at ``scratch_cgroup``, with small maps and the agent's own store."""
    with loader.load(pin_folder=pin_folder, cgroup=scratch_cgroup, sizes=SMALL, lock_timeout=0) as loaded:
        yield loaded
