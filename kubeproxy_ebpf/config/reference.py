# SPDX-License-Identifier: Apache-2.0
"""The keys to a Markdown table for docs/operations.md, so that it cannot say anything else than the code does."""

from __future__ import annotations

from kubeproxy_ebpf.config.keys import KEYS

_BEGIN = "<!-- keys:begin -->\n"
_END = "<!-- keys:end -->"


def render_keys() -> str:
    """Return the table of keys, one line each, ending in a newline."""
    lines = ["| key | flag | value | default | meaning |", "|---|---|---|---|---|"]
    for key in KEYS:
        flag = f"`{key.flag}`" + (f", `--no-{key.flag[2:]}`" if key.kind.is_switch else "")
        cells = (f"`{key.name}`", flag, key.kind.expects, key.default_text, key.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def put_keys(document: str) -> str:
    """Return a document with the table of keys between its marks, whatever stood there."""
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        msg = f"the document lacks the marks {_BEGIN.strip()} and {_END}"
        raise ValueError(msg)
    return before + begin + render_keys() + end + after
