# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml asks for -> requirements.lock, one exact version of everything; `make lock`.

With --check nothing is written: every requirement must be met by the lock as it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
LOCK = CHECKOUT / "requirements.lock"
HEAD = "# What `make lock` made of pyproject.toml: the versions that builds, tests and checks use.\n"


def requirements() -> list[str]:
    """Everything that building, running and checking needs, as pyproject.toml says it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    return [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
    ]


def lock() -> None:
    """Install the newest versions that fit into a fresh environment, and write down which they are."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--upgrade", *requirements()], check=True)
        frozen = subprocess.run([*pip, "freeze", "--all", "--exclude=pip"], check=True, capture_output=True, text=True)
    LOCK.write_text(HEAD + frozen.stdout)


def unmet() -> list[str]:
    """Name the requirements that no version in the lock meets."""
    from packaging.requirements import Requirement  # noqa: PLC0415 - only in the environment, which lock() makes
    from packaging.utils import canonicalize_name  # noqa: PLC0415 - likewise

    lines = (re.fullmatch(r"([^=#\s]+)==(\S+)", line) for line in LOCK.read_text().splitlines())
    locked = {canonicalize_name(match[1]): match[2] for match in lines if match}
    wanted = [Requirement(text) for text in requirements()]
    return [str(one) for one in wanted if not one.specifier.contains(locked.get(canonicalize_name(one.name), "0"))]


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        lock()
    elif missing := unmet():
        sys.exit(f"requirements.lock does not meet {', '.join(missing)}: run `make lock` and commit the result")
