# SPDX-License-Identifier: Apache-2.0
"""Turns bench/kubernetes (a Go module of three lines' worth) into etcd, kube-apiserver and kube-proxy, built once.

The folder it is built into is named by the content of the module, so a changed version is another folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

MODULE = Path(__file__).parent / "kubernetes"
PROGRAMS = ("etcd", "kube-apiserver", "kube-proxy")
_SOURCES = ("go.mod", "go.sum", "main.go")
_VERSION_PACKAGE = "k8s.io/component-base/version"


class BuildError(Exception):
    """Kubernetes could not be built."""


def version() -> str:
    """Return the Kubernetes version that the module pins, such as ``1.36.3``."""
    for line in (MODULE / "go.mod").read_text().splitlines():
        words = line.replace("require ", "").split()
        if len(words) >= 2 and words[0] == "k8s.io/kubernetes":
            return words[1].removeprefix("v")
    msg = f"{MODULE / 'go.mod'} does not require k8s.io/kubernetes"
    raise BuildError(msg)


def folder() -> Path:
    """Return where the programs are, or will be."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((MODULE / name).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "kubeproxy-ebpf" / "kubernetes" / digest.hexdigest()[:16]


def build() -> Path:
    """Return a folder with the programs; build them first if they are not there (some minutes, once).

    Raises:
        BuildError: there is no Go, or it could not build.
    """
    target = folder()
    if all((target / name).exists() for name in PROGRAMS):
        return target
    go = shutil.which("go")
    if go is None:
        msg = "kube-proxy, the other column, is built with Go: install it, or use --quick"
        raise BuildError(msg)
    print(f"building Kubernetes {version()} into {target}: about 4 minutes on 2 cores, once", flush=True)
    target.mkdir(parents=True, exist_ok=True)
    _go_build(go, target / "kubernetes.part")
    (target / "kubernetes.part").rename(target / "kubernetes")
    for name in PROGRAMS:
        (target / name).unlink(missing_ok=True)
        (target / name).symlink_to("kubernetes")
    return target


def _go_build(go: str, output: Path) -> None:
    number = version()
    major, minor, _ = number.split(".", 2)
    settings = {"gitVersion": f"v{number}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s", "-w", *(f"-X {_VERSION_PACKAGE}.{key}={value}" for key, value in settings.items())])
    command = ["nice", go, "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(output), "."]
    result = subprocess.run(command, cwd=MODULE, check=False)
    if result.returncode:
        msg = f"{' '.join(command)} failed in {MODULE} (exit code {result.returncode})"
        raise BuildError(msg)
