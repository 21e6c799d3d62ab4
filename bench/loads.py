# SPDX-License-Identifier: Apache-2.0
"""Compiles the C programs that make the connections."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from bench import world

SOURCES = Path(__file__).parent / "loads"


@dataclass(frozen=True, slots=True)
class Loads:
    """The programs; each one's source says what it does."""

    answer: Path
    latency: Path
    rate: Path
    hook: Path
    effect: Path
    reach: Path
    steady: Path
    packets: Path
    datagrams: Path
    transfer: Path


def compile_loads(folder: Path) -> Loads:
    """Compile them into a folder.

    Raises:
        world.WorldError: there is no C compiler, or it refuses.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        msg = "there is no C compiler: install gcc or clang"
        raise world.WorldError(msg)
    programs = {}
    for name in Loads.__dataclass_fields__:
        target = folder / name
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
        world.run(compiler, *flags, str(SOURCES / f"{name}.c"), "-o", str(target))
        programs[name] = target
    return Loads(**programs)
