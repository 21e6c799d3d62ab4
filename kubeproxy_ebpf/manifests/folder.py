# SPDX-License-Identifier: Apache-2.0
"""A watched folder of manifests to updates of objects. Only files that changed are read again.

Whoever owns the event loop polls :meth:`ManifestFolder.fileno` and calls :meth:`ManifestFolder.drain`; nothing here
waits, nothing runs by itself. What is wrong is logged once, when it appears, and stands in ``problems`` until mended.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from kubeproxy_ebpf import yaml_reader
from kubeproxy_ebpf.manifests.claims import Claims
from kubeproxy_ebpf.manifests.file import (
    MOST_PROBLEMS,
    FileContent,
    ManifestProblem,
    PlacedObject,
    UnreadableFileError,
    read_objects,
    read_text,
)
from kubeproxy_ebpf.manifests.watch import FolderWatch, list_manifests
from kubeproxy_ebpf.model.objects import KubernetesObject
from kubeproxy_ebpf.source import ObjectKey, Occurrence, Update

SET_ASIDE_SECONDS: Final = 1.0
"""How long a file counts that an editor renamed to ``name~`` and has not written anew yet."""

_log = structlog.get_logger(__name__)


class ManifestFolder:
    """The objects that a folder's files say there are. Not safe for threads."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Start watching; nothing is read yet.

        Raises:
            ManifestFolderError: the folder cannot be watched.
        """
        self._folder = folder
        self._clock = clock
        self._watch = FolderWatch(folder)
        self._claims = Claims()
        self._digests: dict[str, bytes] = {}
        self._set_aside: dict[str, float] = {}
        self._file_problems: dict[str, tuple[ManifestProblem, ...]] = {}
        self._rival_problems: dict[str, tuple[ManifestProblem, ...]] = {}
        self._folder_problem: ManifestProblem | None = None
        self._is_listed = False

    @property
    def problems(self) -> tuple[ManifestProblem, ...]:
        """All that is wrong now, by file."""
        names = sorted(self._file_problems.keys() | self._rival_problems.keys())
        found = tuple(problem for name in names for problem in self._problems_of(name))
        return (self._folder_problem, *found) if self._folder_problem else found

    @property
    def is_listed(self) -> bool:
        """Whether every file was read once."""
        return self._is_listed

    @property
    def is_complete(self) -> bool:
        """Whether nothing that the files may hold is missing."""
        return self._is_listed and all(problem.is_partial for problem in self.problems)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something may have changed."""
        return self._watch.fileno()

    def due(self) -> float | None:
        """Return after how many seconds :meth:`drain` is to be called even if nothing becomes readable; None: never."""
        if not self._is_listed:
            return 0.0
        if not self._set_aside:
            return None
        return max(0.0, min(self._set_aside.values()) - self._clock())

    def report(self, occurrence: Occurrence) -> None:
        """Nobody listens at a folder; the log has it."""

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def read_all(self) -> list[Update]:
        """Read every file that changed since it was last read: the initial listing, when called first."""
        updates = self._refresh(self._all_names())
        self._is_listed = True
        return updates

    def drain(self) -> list[Update]:
        """Read the files that changed since the last call, all of them at first, and return what that means."""
        if not self._is_listed:
            return self.read_all()
        seen = self._watch.drain()
        now = self._clock()
        names = set(seen.names)
        for name in seen.set_aside:
            self._set_aside[name] = now + SET_ASIDE_SECONDS
        names |= {name for name, until in self._set_aside.items() if until <= now}
        if seen.everything:
            names |= self._all_names() - self._set_aside.keys()
        for name in names:
            self._set_aside.pop(name, None)
        return self._refresh(names) if names else []

    def _all_names(self) -> set[str]:
        """Return the files there are and those there were; none while the folder is gone."""
        try:
            listed = set(list_manifests(self._folder))
        except OSError as error:
            self._folder_is_gone(error.strerror or "")
            return set()
        if self._folder_problem is not None:
            self._folder_problem = None
            _log.info("manifests_folder_back", folder=str(self._folder))
        return listed | self._digests.keys()

    def _folder_is_gone(self, reason: str) -> None:
        if self._folder_problem is not None:
            return
        text = f"cannot be listed ({reason}); the last state stays until it is there again: create it"
        self._folder_problem = ManifestProblem(self._folder, 0, "", text)
        _log.error("manifests_folder_gone", folder=str(self._folder), reason=text)

    def _refresh(self, names: Iterable[str]) -> list[Update]:
        """Read the files again that differ, and return the objects that did change."""
        before: dict[ObjectKey, KubernetesObject | None] = {}
        known = {name: self._problems_of(name) for name in self._file_problems.keys() | self._rival_problems.keys()}
        for name in sorted(names):
            objects = self._read(name)
            if objects is None:
                continue
            for key in (*self._claims.of(name), *objects):
                if key not in before:
                    before[key] = self._claims.in_effect(key)
            self._claims.replace(name, objects)
        self._find_rivals(before.keys())
        self._log_problems(known)
        after = ((key, self._claims.in_effect(key)) for key in before)
        return [Update(key, newest) for key, newest in after if newest != before[key]]

    def _read(self, name: str) -> Mapping[ObjectKey, PlacedObject] | None:
        """Return the objects of a file; None if it says what it said before, or cannot be read."""
        file = self._folder / name
        try:
            text = read_text(file)
        except UnreadableFileError as error:
            self._digests[name] = b""  # whatever it says once it can be read again is news
            self._file_problems[name] = (ManifestProblem(file, 0, "", error.reason),)
            return None
        if text is None:
            self._digests.pop(name, None)
            self._file_problems.pop(name, None)
            return {}
        digest = hashlib.blake2b(text, digest_size=16).digest()
        if self._digests.get(name) == digest:
            return None
        self._digests[name] = digest
        try:
            content = read_objects(file, text)
        except UnreadableFileError as error:
            self._file_problems[name] = (ManifestProblem(file, error.line, "", error.reason),)
            return None
        if content.problems:
            self._file_problems[name] = content.problems
        else:
            self._file_problems.pop(name, None)
        if content.other_kinds:
            _log.debug("manifest_kinds_ignored", file=str(file), kinds=sorted(content.other_kinds))
        return self._with_last_good(name, content)

    def _with_last_good(self, name: str, content: FileContent) -> Mapping[ObjectKey, PlacedObject]:
        """Return a file's objects with the last good state of those that are malformed now."""
        old = self._claims.of(name)
        kept = {key: old[key] for key in old if key in content.refused or content.has_unnamed}
        return {**kept, **content.objects} if kept else content.objects

    def _find_rivals(self, touched: Iterable[ObjectKey]) -> None:
        """Find the objects that several files hold, among files that hold any of those touched."""
        names = {name for key in touched for name in self._claims.holders(key)} | self._rival_problems.keys()
        for name in names:
            rivals = list(self._claims.rivals(name))
            if rivals:
                self._rival_problems[name] = self._describe(name, rivals)
            else:
                self._rival_problems.pop(name, None)

    def _describe(self, name: str, rivals: list[tuple[ObjectKey, PlacedObject, str]]) -> tuple[ManifestProblem, ...]:
        file = self._folder / name
        shown = rivals[:MOST_PROBLEMS]
        try:
            lines = yaml_reader.find_lines(read_text(file) or b"", [placed.path for _, placed, _ in shown])
        except UnreadableFileError:
            lines = {}
        problems = [
            ManifestProblem(
                file,
                lines.get(placed.path, 0),
                str(key),
                f"{key}: is in {self._folder / holder} too, which counts; remove it from one of the two",
            )
            for key, placed, holder in shown
        ]
        if len(rivals) > len(shown):
            rest = f"has {len(rivals) - len(shown)} more objects that other files have; remove them"
            problems.append(ManifestProblem(file, 0, "", rest))
        return tuple(problems)

    def _problems_of(self, name: str) -> tuple[ManifestProblem, ...]:
        return (*self._file_problems.get(name, ()), *self._rival_problems.get(name, ()))

    def _log_problems(self, known: Mapping[str, tuple[ManifestProblem, ...]]) -> None:
        """Log what appeared, and what is mended."""
        for name in sorted(known.keys() | self._file_problems.keys() | self._rival_problems.keys()):
            now = self._problems_of(name)
            old = known.get(name, ())
            for problem in now:
                if problem not in old:
                    _log_problem(problem)
            if old and not now:
                _log.info("manifest_mended", file=str(self._folder / name))


def _log_problem(problem: ManifestProblem) -> None:
    fields = {
        "file": str(problem.file),
        "line": problem.line,
        "object": problem.subject,
        "reason": problem.reason,
    }
    if problem.is_partial:
        _log.warning("manifest_object_incomplete", **fields)
    else:
        _log.error("manifest_refused", **fields)
