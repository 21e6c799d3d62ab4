# SPDX-License-Identifier: Apache-2.0
"""YAML within bounds: values as Kubernetes resolves them, lines, and every refusal."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubeproxy_ebpf.yaml_reader import MAX_ALIASED_VALUES, YamlError, find_lines, read_documents

LAUGHS = b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 10)) for letter in b"bcdefgh"
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        ("-5", -5),
        ("+5", 5),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0777", 511),
        ("0o777", 511),
        ("0b101", 5),
        ("0", 0),
        ("08", 8.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("0x_", "0x_"),
        ("._", "._"),
        ("'80'", "80"),
        ('"80"', "80"),
        ("!!str 80", "80"),
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::1"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("true", True),
        ("No", False),
        ("~", None),
        ("null", None),
        ("nullify", "nullify"),
        ("-", [None]),
        ("9" * 200, "9" * 200),
    ],
)
def test_scalars(text: str, value: object) -> None:
    """Plain scalars resolve as Kubernetes resolves them; quoted ones are text."""
    assert list(read_documents(text.encode())) == [value]


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (b"", []),
        (b"# only a comment\n", []),
        (b"---\n---\na: 1\n", [None, {"a": 1}]),
        (b"a: &x [1, {b: 2}]\nc: *x\n", [{"a": [1, {"b": 2}], "c": [1, {"b": 2}]}]),
        (b"a: &x 1\nb: *x\n", [{"a": 1, "b": 1}]),
        (b"80: yes\ntrue: 1\n", [{"80": True, "true": 1}]),
        (b"a: |\n  two\n  lines\n", [{"a": "two\nlines\n"}]),
        (b'{"a": [1, "\\u00e4", null]}', [{"a": [1, "ä", None]}]),
    ],
)
def test_documents(text: bytes, documents: list[object]) -> None:
    """Documents, aliases, keys and block texts."""
    assert list(read_documents(text)) == documents


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (b"a: 1\nb: c: d\n", 2, "mapping values are not allowed"),
        (b"a: 1\na: 2\n", 2, "key 'a' appears twice"),
        (b"a:\n- *nothing\n", 2, "refers to nothing before it"),
        (b"a: &a [*a]\n", 1, "refers to nothing before it"),
        (b"a: 1\n*b : 2\n", 2, "as a key"),
        (b"? [a]\n: 1\n", 1, "as a key"),
        (b"x: 1\n<<: {a: 1}\n", 2, "merge key"),
        (b"a: !!python/object/apply:os.system [id]\n", 1, "tag tag:yaml.org,2002:python/object/apply:os.system"),
        (b"a: !secret x\n", 1, "tag !secret"),
        (b"[" * 200_000, 1, "nested more than"),
        (b"- " * 100_000, 1, "nested more than"),
        (LAUGHS, 5, f"more than {MAX_ALIASED_VALUES} values"),
        (b"a: \x01\n", 0, "control characters"),
        (b"a: \xff\n", 0, "invalid"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_refusals(text: bytes, line: int, reason: str) -> None:
    """What no manifest needs is refused with its line; nothing overflows the stack or the memory."""
    with pytest.raises(YamlError) as caught:
        list(read_documents(text))
    assert caught.value.line == line
    assert reason in str(caught.value)


def test_lines() -> None:
    """A path has the line of its key; one that does not exist that of its deepest part."""
    text = b"a: 1\nb:\n  c:\n  - 1\n  - d: 2\n    e: [3,\n     4]\n---\nf: {g: 1}\n"
    paths = {
        (0, "a"): 1,
        (0, "b"): 2,
        (0, "b", "c", 0): 4,
        (0, "b", "c", 1): 5,
        (0, "b", "c", 1, "e", 1): 7,
        (0, "b", "c", 1, "nothing", "at", "all"): 5,
        (1,): 9,
        (1, "f", "g"): 9,
    }
    assert find_lines(text, [*paths, (7, "nothing")]) == paths


def test_lines_of_json() -> None:
    """JSON indented with tabs has lines too."""
    text = b'{\n\t"items": [\n\t\t{"a": 1},\n\t\t{"a": 2}\n\t]\n}\n'
    assert find_lines(text, [(0, "items", 1, "a")]) == {(0, "items", 1, "a"): 4}


def test_lines_before_a_fault() -> None:
    """Text that is no YAML has lines up to the fault."""
    assert find_lines(b"a: 1\nb: [\n", [(0, "a")]) == {(0, "a"): 1}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_was_written_is_read(value: object, flow: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """Whatever a YAML writer writes is read as the same value."""
    text = yaml.safe_dump(value, default_flow_style=flow)
    assert list(read_documents(text.encode())) == [value]


@given(st.text("0189afxXob_+-.eE", max_size=8))
def test_what_looks_like_a_number_is_read_or_refused(text: str) -> None:
    """No plain scalar, however close to a number, is anything but a value or a YamlError."""
    try:
        (document,) = read_documents(f"a: {text}\n".encode())
    except YamlError:
        return
    assert isinstance(document, dict)
    assert document.keys() == {"a"}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """No input gives anything but documents or a YamlError."""
    try:
        documents = list(read_documents(text))
    except YamlError:
        return
    assert all(not isinstance(value, float) or not math.isnan(value) for value in documents)
