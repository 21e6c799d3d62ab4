# SPDX-License-Identifier: Apache-2.0
"""A kernel series -> Debian's newest package of it, unpacked in the cache and ready to boot.

Nothing is installed: apt-get works with a sources list, package lists and a download folder of its own.
"""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from functools import cmp_to_key
from pathlib import Path

SOURCES = Path(__file__).with_name("debian.list")
LISTS_LAST = 7 * 24 * 3600  # seconds until the package lists are fetched again
IMAGES = "^linux-image-[0-9]+[.][0-9]+[.].*-cloud-amd64$"
PARTS = ("image", "base", "binary", "modules")  # newer packages are split; older ones are all in "image"


class KernelPackageError(Exception):
    """Debian has no such kernel, or its package is not what it used to be."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that can be booted."""

    release: str
    """As `uname -r` prints it there."""
    root: Path
    """The unpacked packages, with an index of the modules."""

    @property
    def image(self) -> Path:
        """The compressed kernel: in boot/ of older packages, among the modules in newer ones."""
        for path in (self.root / "boot" / f"vmlinuz-{self.release}", self.modules / "vmlinuz"):
            if path.exists():
                return path
        message = f"no vmlinuz for {self.release} in {self.root}: delete that folder and try again"
        raise KernelPackageError(message)

    @property
    def modules(self) -> Path:
        """What /lib/modules/<release> is."""
        return self.root / "lib" / "modules" / self.release

    def modules_for(self, names: tuple[str, ...]) -> list[Path]:
        """Files of the named modules and those they need, in the order of loading; built-in ones are left out."""
        files: list[Path] = []
        for name in names:
            shown = _output("modprobe", "--show-depends", "-d", str(self.root), "-S", self.release, name)
            for line in shown.splitlines():
                what, _, path = line.strip().partition(" ")
                if what == "insmod" and Path(path) not in files:
                    files.append(Path(path.split()[0]))
        return files


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kernel that apt knows."""

    release: str
    version: str
    """Of the package, as dpkg orders versions."""


class KernelCache:
    """A folder of unpacked kernels, and apt's lists to find more."""

    def __init__(self, folder: Path) -> None:
        """Keep everything under `folder`, which is created."""
        self._folder = folder
        self._lists = folder / "apt" / "lists"
        (self._lists / "partial").mkdir(parents=True, exist_ok=True)
        (folder / "apt" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        self._apt = (
            *("-o", f"Dir::Etc::sourcelist={SOURCES}", "-o", "Dir::Etc::sourceparts=/dev/null"),
            *("-o", f"Dir::State::lists={self._lists}", "-o", f"Dir::Cache={folder / 'apt'}"),
            *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "-q"),
            *("-o", "Acquire::Check-Valid-Until=false"),  # an old release is not signed anew
        )

    def get(self, series: str, debian: str) -> Kernel:
        """Give the newest kernel of a series ("6.1", or "newest") in a Debian release; fetched unless it is cached."""
        release = self._newest_release(series, debian)
        kernel = Kernel(release, self._folder / release)
        if not (kernel.modules / "modules.dep").exists():
            self._unpack(kernel)
        return kernel

    def _newest_release(self, series: str, debian: str) -> str:
        self._update_lists()
        found = _output("apt-cache", *self._apt, "search", "--names-only", IMAGES)
        names = [line.split()[0] for line in found.splitlines()]
        candidates: list[Candidate] = []
        for line in _output("apt-cache", *self._apt, "madison", *names).splitlines():
            name, version, source = (field.strip() for field in line.split("|", 2))
            release = name.removeprefix("linux-image-")
            if f" {debian}" in source and (series == "newest" or release.startswith(f"{series}.")):
                candidates.append(Candidate(release, version))
        if not candidates:
            message = f"{SOURCES} has no cloud kernel {series} of {debian}: name another one in kernels.txt"
            raise KernelPackageError(message)
        return max(candidates, key=cmp_to_key(_compare)).release

    def _update_lists(self) -> None:
        stamp = self._folder / "apt" / "updated"
        now = time.time()  # noqa: TID251 - as files are dated
        if not stamp.exists() or now - stamp.stat().st_mtime > LISTS_LAST:
            _output("apt-get", *self._apt, "update")
            stamp.touch()

    def _unpack(self, kernel: Kernel) -> None:
        names = [f"linux-{part}-{kernel.release}" for part in PARTS]
        known = _output("apt-cache", *self._apt, "search", "--names-only", f"^linux-.*-{re.escape(kernel.release)}$")
        wanted = [name for name in names if name in {line.split()[0] for line in known.splitlines()}]
        downloads = kernel.root / "packages"
        downloads.mkdir(parents=True, exist_ok=True)
        _output("apt-get", *self._apt, "download", *wanted, cwd=downloads)
        for package in downloads.glob("*.deb"):
            _output("dpkg", "-x", str(package), str(kernel.root))
            package.unlink()
        if not (kernel.root / "lib").exists():
            (kernel.root / "lib").symlink_to("usr/lib")
        _output("depmod", "-b", str(kernel.root), kernel.release)


def _compare(one: Candidate, other: Candidate) -> int:
    if one.version == other.version:
        return 0
    newer = subprocess.run(["dpkg", "--compare-versions", one.version, "gt", other.version], check=False)
    return 1 if newer.returncode == 0 else -1


def _output(*command: str, cwd: Path | None = None) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout
    except FileNotFoundError as error:
        message = f"{command[0]} is not installed: run `make install`"
        raise KernelPackageError(message) from error
    except subprocess.CalledProcessError as error:
        message = f"`{' '.join(command)}` failed: {error.stderr.strip()}"
        raise KernelPackageError(message) from error
