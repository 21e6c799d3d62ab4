# SPDX-License-Identifier: Apache-2.0
"""Finds a Go that is new enough for the module, or has the Go that there is fetch one.

Distributions' Go is older than what Kubernetes needs. But each release of Go is a Go module as well: since 1.21 Go
changes over to it by itself unless the distribution forbids that, and an older one can at least download it, and
checks it as it checks every module. It is unpacked beside the other caches; nothing is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from tools.kubernetes.errors import BuildError

_EXECUTABLES = ("bin/", "pkg/tool/")


def find_go(module: Path, cache: Path) -> Path:
    """Return the go command to build a module with; what it needs and what is fetched stands in its go.mod.

    Raises:
        BuildError: there is no Go at all, or it cannot fetch a newer one.
    """
    found = shutil.which("go")
    if found is None:
        msg = "there is no Go: run `tools/install-packages kubernetes` as root, or put Go into PATH"
        raise BuildError(msg)
    lines = (module / "go.mod").read_text().splitlines()
    needed = next(line.removeprefix("go ") for line in lines if line.startswith("go "))
    fetched = next(line.removeprefix("toolchain ") for line in lines if line.startswith("toolchain "))
    if _numbers(_ask(found, "env", "GOVERSION")) >= _numbers(needed):
        return Path(found)
    target = cache / fetched
    if not target.exists():
        print(f"Go {needed} is needed, and this is {_ask(found, 'env', 'GOVERSION')}: fetching {fetched}", flush=True)
        _fetch(found, fetched, target)
    return target / "bin" / "go"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of ``go1.26.8`` or ``1.26.0``."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0]))


def _ask(go: str, *arguments: str) -> str:
    # Outside of any module, and as the Go that it is.
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""}
    result = subprocess.run((go, *arguments), cwd="/", env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        msg = f"{go} {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}"
        raise BuildError(msg)
    return result.stdout.strip()


def _fetch(go: str, release: str, target: Path) -> None:
    version = f"v0.0.1-{release}.{_ask(go, 'env', 'GOOS')}-{_ask(go, 'env', 'GOARCH')}"
    archive = json.loads(_ask(go, "mod", "download", "-json", f"golang.org/toolchain@{version}"))["Zip"]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        root = Path(folder) / f"golang.org/toolchain@{version}"
        _make_usable(root)
        root.rename(target)


def _make_usable(root: Path) -> None:
    """Restore what a module cannot have: executables, and modules within it."""
    for path in root.rglob("*"):
        if path.is_file() and str(path.relative_to(root)).startswith(_EXECUTABLES):
            path.chmod(0o755)
        elif path.name == "_go.mod":
            path.rename(path.with_name("go.mod"))
