# SPDX-License-Identifier: Apache-2.0
"""The documents: what they link to and which files they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PLACES = (ROOT, ROOT / "kubeproxy_ebpf", ROOT / "kubeproxy_ebpf" / "datapath", ROOT / "tests", ROOT / "bpf_src")
"""What a document's names of files are relative to."""

_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
_FILE = re.compile(r"(?<![\w/.-])[\w/]+(?:\.py|\.h|\.bpf\.c)(?![\w/])")
_FOLDER_IN_PICTURE = re.compile(r"(?<=[ (])[a-z_]+/(?=[ ),])")


def is_there(name: str) -> bool:
    """Whether a document may speak of a file or folder of this name."""
    return any((place / name).exists() for place in PLACES)


def pictures(text: str) -> str:
    """Return what stands between fences."""
    return "\n".join(text.split("```")[1::2])


def missing(document: Path) -> list[str]:
    """Return what a document names that is not there."""
    text = document.read_text(encoding="utf-8")
    links = [link for link in _LINK.findall(text) if not (document.parent / link).exists()]
    named = set(_FILE.findall(text))
    if document.name == "architecture.md":
        named.update(_FOLDER_IN_PICTURE.findall(pictures(text)))
    return links + sorted(name for name in named if not is_there(name))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_named_is_there(document: Path) -> None:
    """Links lead to files; files, and the folders in the picture of the architecture, are where they are said to be."""
    assert missing(document) == []


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    """Each kind of name is looked for."""
    document = tmp_path / "architecture.md"
    document.write_text(
        "[a](b.md) [c](https://d.md) `agent.py` `kubernetes/gone.py` gone.h\n```\n layout/  gone/  │\n```\n"
    )
    assert missing(document) == ["b.md", "gone.h", "gone/", "kubernetes/gone.py"]


def test_the_picture_has_names() -> None:
    """The picture of the architecture is read, and names most of the package's folders."""
    named = set(_FOLDER_IN_PICTURE.findall(pictures((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))))
    folders = {f"{init.parent.name}/" for init in (ROOT / "kubeproxy_ebpf").glob("*/__init__.py")}
    assert folders - named == set()
