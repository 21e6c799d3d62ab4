# SPDX-License-Identifier: Apache-2.0
"""YAML text -> plain values, within bounds, and the line on which any of them stands.

Built on the parser's events instead of its composed nodes: a composed tree costs half as much again, and composing
fifty thousand nested brackets overflows the C stack and ends the process. Scalars resolve as Kubernetes resolves
them, so a date stays text. What no manifest needs is refused: tags, keys that are not scalars, keys that appear twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import yaml

Path = tuple[str | int, ...]
"""Where a value stands: the document's number, then keys and indices."""

MAX_DEPTH: Final = 64
MAX_ALIASED_VALUES: Final = 100_000
MAX_DOCUMENTS: Final = 200_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRING_TAGS: Final = frozenset({"tag:yaml.org,2002:str", "!"})
_WORDS: Final[Mapping[str, bool | None]] = {
    form: value
    for word, value in {
        "null": None, "true": True, "false": False, "yes": True, "no": False, "on": True, "off": False,
    }.items()
    for form in (word, word.capitalize(), word.upper())
} | {"": None, "~": None}  # fmt: skip
_FIRST_OF_NUMBER: Final = frozenset("0123456789+-.")
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+|0o?[0-7_]+|0b[01_]+")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?")
_MAX_DIGITS: Final = 100


class YamlError(Exception):
    """The text cannot be read as YAML, or exceeds a bound. ``line`` counts from 1; 0: unknown."""

    def __init__(self, problem: str, line: int = 0) -> None:
        """Remember what is wrong and where."""
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.problem = problem
        self.line = line


def read_documents(text: bytes) -> Iterator[object]:
    """Yield the value of each document; a lone scalar counts as a document too.

    Raises:
        YamlError: syntax, or a bound is exceeded.
    """
    events = _events(text)
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > MAX_DOCUMENTS:
                msg = f"more than {MAX_DOCUMENTS} documents; split the file"
                raise YamlError(msg, _line(event))
            yield _Document(events).value()


def find_lines(text: bytes, paths: Iterable[Path]) -> dict[Path, int]:
    """Return the line of each path, or of the deepest part of it that exists; nothing for a document that is not there.

    A JSON text works too. Text that is no YAML gives the lines up to the fault.
    """
    wanted = set(paths)
    prefixes = {path[:length] for path in wanted for length in range(1, len(path) + 1)}
    found: dict[Path, int] = {}
    try:
        for path, line in _walk(text.replace(b"\t", b" ")):
            if path in prefixes:
                found.setdefault(path, line)
    except YamlError:
        pass  # the caller has met the fault already; what stands before it has its line
    lines: dict[Path, int] = {}
    for path in wanted:
        for length in range(len(path), 0, -1):
            if path[:length] in found:
                lines[path] = found[path[:length]]
                break
    return lines


def _events(text: bytes) -> Iterator[Any]:
    """Yield the parser's events; its errors become :class:`YamlError`."""
    try:
        parser = _Loader(text)
        try:
            while (event := parser.get_event()) is not None:
                yield event
        finally:
            parser.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(str(error.problem or error.context), mark.line + 1 if mark else 0) from error
    except yaml.YAMLError as error:
        raise YamlError(str(error).splitlines()[0]) from error


class _Document:
    """Builds one document's value from its events."""

    __slots__ = ("_aliased", "_anchors", "_count", "_events")

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[object, int]] = {}
        self._count = 0  # values so far, those behind aliases counted at each use
        self._aliased = 0

    def value(self) -> object:
        """Consume the document's events. Iterative: depth must not cost stack."""
        stack: list[tuple[Any, str | None, str | None, int]] = []
        container: Any = []  # receives the root
        key: str | None = None
        anchor: str | None = None
        start = 0
        for event in self._events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                if type(container) is dict and key is None:
                    key = _key(event, container)
                    continue
                value = _scalar(event)
                self._count += 1
                if event.anchor is not None:
                    self._anchors[event.anchor] = (value, 1)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                _check_collection(event, container, key, len(stack))
                stack.append((container, key, anchor, start))
                self._count += 1
                container, key, anchor, start = (
                    {} if kind is yaml.MappingStartEvent else [],
                    None,
                    event.anchor,
                    self._count,
                )
                continue
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                value = container
                if anchor is not None:
                    self._anchors[anchor] = (value, self._count - start + 1)
                container, key, anchor, start = stack.pop()
            elif kind is yaml.AliasEvent:
                value = self._alias(event, container, key)
            else:  # the document's end
                return container[0] if container else None
            if key is None:
                container.append(value)
            else:
                container[key] = value
                key = None
        return None

    def _alias(self, event: yaml.AliasEvent, container: object, key: str | None) -> object:
        if isinstance(container, dict) and key is None:
            msg = f"alias *{event.anchor} as a key; write the key out"
            raise YamlError(msg, _line(event))
        if event.anchor not in self._anchors:
            msg = f"alias *{event.anchor} refers to nothing before it"
            raise YamlError(msg, _line(event))
        value, size = self._anchors[event.anchor]
        self._aliased += size
        self._count += size
        if self._aliased > MAX_ALIASED_VALUES:
            msg = f"aliases stand for more than {MAX_ALIASED_VALUES} values; write them out"
            raise YamlError(msg, _line(event))
        return value


def _check_collection(event: yaml.CollectionStartEvent, container: object, key: str | None, depth: int) -> None:
    """Refuse what may not start here."""
    if isinstance(container, dict) and key is None:
        msg = "a mapping or list as a key; keys are plain text"
        raise YamlError(msg, _line(event))
    if depth >= MAX_DEPTH:
        msg = f"nested more than {MAX_DEPTH} deep"
        raise YamlError(msg, _line(event))
    if event.tag is not None and not event.implicit:
        msg = f"tag {event.tag} is not accepted"
        raise YamlError(msg, _line(event))


def _key(event: yaml.ScalarEvent, container: Mapping[str, object]) -> str:
    """Return a mapping's key, which is text whatever it looks like, as in JSON."""
    key: str = event.value
    if key == "<<" and event.implicit[0]:
        msg = "merge key <<; write the fields out"
        raise YamlError(msg, _line(event))
    if key in container:
        msg = f"key {key!r} appears twice"
        raise YamlError(msg, _line(event))
    return key


def _scalar(event: yaml.ScalarEvent) -> object:
    """Return a scalar's value: plain ones resolve, quoted ones are text."""
    text: str = event.value
    if not event.implicit[0]:
        if event.tag is not None and not event.implicit[1] and event.tag not in _STRING_TAGS:
            msg = f"tag {event.tag} is not accepted"
            raise YamlError(msg, _line(event))
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in _FIRST_OF_NUMBER and len(text) < _MAX_DIGITS:
        return _number(text)
    return text


def _number(text: str) -> object:
    """Return an integer or float, or the text if it is neither (an address, a date)."""
    digits = text.replace("_", "")
    try:
        if _INTEGER.fullmatch(text):
            return int(digits, 8 if digits.startswith("0") and digits.isdigit() else 0)
        if _FLOAT.fullmatch(text):
            return float(digits)
    except ValueError:
        pass  # nothing but underscores where digits belong: "0x_", "._"
    return text


def _walk(text: bytes) -> Iterator[tuple[Path, int]]:
    """Yield path and line of every value, in order; a mapping's entries stand where their keys do."""
    path: list[str | int] = []
    kinds: list[bool] = []  # for each open collection: whether it is a mapping
    document = -1
    at_key = False
    for event in _events(text):
        if isinstance(event, yaml.DocumentStartEvent):
            document += 1
            path, kinds, at_key = [document], [], False
        elif isinstance(event, yaml.CollectionEndEvent):
            kinds.pop()
            path.pop()
            at_key = _advance(path, kinds)
        elif isinstance(event, yaml.NodeEvent):
            if at_key:
                path[-1] = getattr(event, "value", "")
                at_key = False
                yield tuple(path), _line(event)
                continue
            yield tuple(path), _line(event)
            if isinstance(event, yaml.CollectionStartEvent):
                kinds.append(isinstance(event, yaml.MappingStartEvent))
                path.append("" if kinds[-1] else 0)
                at_key = kinds[-1]
            else:
                at_key = _advance(path, kinds)


def _advance(path: list[str | int], kinds: list[bool]) -> bool:
    """Step to the next entry of the innermost collection; return whether its key comes next."""
    if not kinds:
        return False
    last = path[-1]
    if isinstance(last, int):
        path[-1] = last + 1
    return kinds[-1]


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark else 0
