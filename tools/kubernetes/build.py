# SPDX-License-Identifier: Apache-2.0
"""Builds the programs of a cluster from ``module/``, a Go module of a few lines: `python -m tools.kubernetes.build`.

One binary with several names, in a folder of the cache that is named by the module's content: it is built once, and
a changed version is another folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.kubernetes.errors import BuildError
from tools.kubernetes.go import find_go

MODULE = Path(__file__).parent / "module"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl")
_SOURCES = ("go.mod", "go.sum", "main.go")
_VERSION_PACKAGE = "k8s.io/component-base/version"


def version() -> str:
    """Return the Kubernetes version that the module pins, such as ``1.36.3``."""
    for line in (MODULE / "go.mod").read_text().splitlines():
        match line.split():
            case ["k8s.io/kubernetes", found]:
                return found.removeprefix("v")
    msg = f"{MODULE / 'go.mod'} does not require k8s.io/kubernetes"
    raise BuildError(msg)


def build() -> Path:
    """Return a folder with the programs; build them first if they are not there (some minutes, once).

    Raises:
        BuildError: there is no Go, or it could not build.
    """
    target = _cache() / _digest()
    if not _is_built(target):
        target.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not _is_built(target):  # somebody else may have built it meanwhile
                _build(target)
    return target


def find() -> Path:
    """Return the folder with the programs that were built before.

    Raises:
        BuildError: they are not there.
    """
    target = _cache() / _digest()
    if not _is_built(target):
        msg = f"Kubernetes {version()} is not built: run `make kubernetes`"
        raise BuildError(msg)
    return target


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "kubeproxy-ebpf" / "kubernetes"


def _digest() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((MODULE / name).read_bytes())
    return digest.hexdigest()[:16]


def _is_built(target: Path) -> bool:
    return all((target / name).exists() for name in PROGRAMS)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(target: Path) -> None:
    go = find_go(MODULE, _cache())
    print(f"building Kubernetes {version()} into {target}: about 15 minutes of one processor, once", flush=True)
    _go_build(go, target / "kubernetes.part")
    (target / "kubernetes.part").rename(target / "kubernetes")
    for name in PROGRAMS:
        (target / name).unlink(missing_ok=True)
        (target / name).symlink_to("kubernetes")


def _go_build(go: Path, output: Path) -> None:
    number = version()
    major, minor, _ = number.split(".", 2)
    settings = {"gitVersion": f"v{number}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s", "-w", *(f"-X {_VERSION_PACKAGE}.{key}={value}" for key, value in settings.items())])
    command = ["nice", str(go), "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(output), "."]
    # Without C, as Kubernetes is released.
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    result = subprocess.run(command, cwd=MODULE, env=environment, check=False)
    if result.returncode:
        msg = f"{' '.join(command)} failed in {MODULE} (exit code {result.returncode})"
        raise BuildError(msg)


def main() -> int:
    """Build, and say where."""
    try:
        build()
    except BuildError as error:
        print(f"tools.kubernetes.build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
