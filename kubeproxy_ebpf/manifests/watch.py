# SPDX-License-Identifier: Apache-2.0
"""inotify's events on one folder to names of files that may say something new.

A file counts when whoever writes it is done: closed after writing, or moved or linked into place. A half-written one
is never read for its events. When the folder goes, its nearest ancestor is watched until it comes back.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from kubeproxy_ebpf.manifests.file import is_manifest

_FOLDER_MASK: Final = (
    flags.CLOSE_WRITE | flags.CREATE | flags.MOVED_FROM | flags.MOVED_TO | flags.DELETE
    | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
)  # fmt: skip
_ANCESTOR_MASK: Final = flags.CREATE | flags.MOVED_TO | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
_GONE: Final = flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED
_CONFIG_MAP_LINK: Final = "..data"
"""The link that a ConfigMap volume swaps; all its files are links through it."""
_BACKUP_SUFFIX: Final = "~"
_PAIR_TIMEOUT_MS: Final = 1
"""The second event of a rename comes within microseconds of the first, but not always in the same read."""
_ATTEMPTS: Final = 10


class ManifestFolderError(Exception):
    """The folder of manifests cannot be watched."""


class Seen(NamedTuple):
    """What may have changed since the last look."""

    names: frozenset[str]
    """Files that were written, came or went."""
    set_aside: frozenset[str]
    """Files that an editor renamed to its backup's name; it is about to write them anew."""
    everything: bool
    """Any file may have changed."""


class FolderWatch:
    """Watches one folder. Not safe for threads."""

    def __init__(self, folder: Path) -> None:
        """Start watching.

        Raises:
            ManifestFolderError: there is no such folder, or the kernel has no watch left.
        """
        self._folder = folder
        try:
            self._inotify: Any = INotify(nonblocking=True)
        except OSError as error:
            raise _no_watch(folder, error) from error
        self._folder_id: int | None = None
        self._ancestor_id: int | None = None
        try:
            self._folder_id = self._inotify.add_watch(folder, _FOLDER_MASK)
        except OSError as error:
            self.close()
            raise _no_watch(folder, error) from error

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something changed."""
        number: int = self._inotify.fileno()
        return number

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def drain(self) -> Seen:
        """Return what was seen since the last call; never waits for more."""
        events = self._inotify.read(timeout=0)
        if events and events[-1].mask & flags.MOVED_FROM:
            events += self._inotify.read(timeout=_PAIR_TIMEOUT_MS)
        return self._judge(events)

    def _judge(self, events: Sequence[Any]) -> Seen:
        names: set[str] = set()
        set_aside: set[str] = set()
        everything = False
        backups = {event.cookie: event.name for event in events if event.mask & flags.MOVED_TO}
        for event in events:
            if event.mask & flags.Q_OVERFLOW:
                everything = True
            elif event.wd != self._folder_id:
                if event.wd == self._ancestor_id:
                    everything |= self._find_folder()
            elif event.mask & _GONE:
                self._forget_folder()
                self._find_folder()
                everything = True
            elif event.name == _CONFIG_MAP_LINK:
                everything = True
            elif is_manifest(event.name) and self._is_complete(event):
                is_backup = event.mask & flags.MOVED_FROM and backups.get(event.cookie) == event.name + _BACKUP_SUFFIX
                (set_aside if is_backup else names).add(event.name)
                (names if is_backup else set_aside).discard(event.name)
        return Seen(frozenset(names), frozenset(set_aside), everything)

    def _is_complete(self, event: Any) -> bool:  # noqa: ANN401 - the library has no types
        """Whether the file is as its writer wants it: a created one is still to be written, unless it is a link."""
        if event.mask & flags.ISDIR:
            return False
        if not event.mask & flags.CREATE:
            return True
        try:
            entry = (self._folder / event.name).lstat()
        except OSError:
            return True
        return stat.S_ISLNK(entry.st_mode) or entry.st_nlink > 1

    def _forget_folder(self) -> None:
        if self._folder_id is not None:
            self._remove(self._folder_id)
        self._folder_id = None

    def _find_folder(self) -> bool:
        """Watch the folder if it is there, else its nearest ancestor; return whether it is there."""
        for _ in range(_ATTEMPTS):
            try:
                self._folder_id = self._inotify.add_watch(self._folder, _FOLDER_MASK)
            except OSError:
                ancestor = next(path for path in self._folder.absolute().parents if path.is_dir())
                found = self._add(ancestor)
                if found is not None and found == self._ancestor_id:
                    return False  # it was watched before this last look at the folder
                self._forget_ancestor()
                self._ancestor_id = found
            else:
                self._forget_ancestor()
                return True
        return False

    def _add(self, path: Path) -> int | None:
        try:
            number: int = self._inotify.add_watch(path, _ANCESTOR_MASK)
        except OSError:
            return None
        return number

    def _forget_ancestor(self) -> None:
        if self._ancestor_id is not None:
            self._remove(self._ancestor_id)
        self._ancestor_id = None

    def _remove(self, number: int) -> None:
        try:
            self._inotify.rm_watch(number)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel has removed it with its folder
                raise


def _no_watch(folder: Path, error: OSError) -> ManifestFolderError:
    """Return the error for a folder that cannot be watched."""
    if error.errno in {errno.ENOSPC, errno.EMFILE}:
        remedy = "raise the sysctls fs.inotify.max_user_watches and fs.inotify.max_user_instances"
    elif error.errno in {errno.ENOENT, errno.ENOTDIR}:
        remedy = "create the folder, or name another with --manifests"
    else:
        remedy = "make it readable"
    return ManifestFolderError(f"manifests folder {folder} cannot be watched ({error.strerror}); {remedy}")


def list_manifests(folder: Path) -> Iterable[str]:
    """Return the names of the folder's manifest files, sorted.

    Raises:
        OSError: the folder cannot be listed.
    """
    return sorted(entry.name for entry in folder.iterdir() if is_manifest(entry.name))
