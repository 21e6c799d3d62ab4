# SPDX-License-Identifier: Apache-2.0
"""Why the datapath cannot be loaded, attached or opened. Each message names the object and the remedy."""

from __future__ import annotations


class DatapathError(Exception):
    """The base of what stops the agent before it has changed anything."""


class BpffsError(DatapathError):
    """The pin folder is not where a BPF file system is, or cannot be written."""


class LockedError(DatapathError):
    """Another process holds the pin folder."""


class UnknownLayoutError(DatapathError):
    """What is pinned was made by a version whose maps mean something else."""


class NotLoadedError(DatapathError):
    """Nothing is pinned in the folder."""


class CgroupError(DatapathError):
    """There is no cgroup to attach to."""


class AttachError(DatapathError):
    """The kernel refused to attach a program."""


class MapSizeError(DatapathError):
    """A map cannot have the configured size."""


class MixedVersionsError(DatapathError):
    """The programs and the agent of this package do not belong together."""
