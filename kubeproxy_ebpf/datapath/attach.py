# SPDX-License-Identifier: Apache-2.0
"""Puts the socket programs where a cgroup's processes meet them, and tells who else is there.

Each hook is a BPF link, which attaches beside other people's programs and whose program can be replaced
without a moment in between. Links are pinned by :mod:`.pins`, so they outlive the agent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from kubeproxy_ebpf.datapath.cgroups import cgroup_id, open_cgroup
from kubeproxy_ebpf.datapath.errors import AttachError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType

_log = structlog.get_logger(__name__)


def hook_name(attach_type: int) -> str:
    """Return what a hook is called in file names and messages: ``connect4``."""
    return AttachType(attach_type).name.lower()


class Attachment:
    """The links being made or updated for one cgroup, until they are kept or undone."""

    def __init__(self, cgroup: Path, pinned_links: Mapping[str, int], pinned_programs: Mapping[str, int]) -> None:
        """Take the cgroup, and descriptors of the links in use and of their programs, which stay the caller's.

        Raises:
            CgroupError: the path is no cgroup.
        """
        self._cgroup = cgroup
        self._cgroup_fd = open_cgroup(cgroup)
        self._cgroup_id = cgroup_id(self._cgroup_fd)
        self._pinned = pinned_links
        self._programs = pinned_programs
        self._created: list[int] = []
        self._replaced: list[tuple[int, int]] = []

    def attach(self, attach_type: int, program_fd: int) -> int:
        """Let a hook run a program from now on; return its link's descriptor, good until :meth:`close`.

        A link that is pinned already gets the program in place of its own, unless its cgroup is gone or another.

        Raises:
            AttachError: the kernel refuses.
        """
        hook = hook_name(attach_type)
        link = self._pinned.get(hook)
        try:
            if link is not None and syscalls.link_info(link).cgroup_id == self._cgroup_id:
                # From its pin: opening a program by its id takes CAP_SYS_ADMIN.
                self._replaced.append((link, self._programs[hook]))
                syscalls.link_update(link, program_fd)
                return link
            created = syscalls.link_create(program_fd, self._cgroup_fd, attach_type)
        except KernelError as error:
            raise AttachError(self._refusal(attach_type, error)) from error
        self._created.append(created)
        return created

    def _refusal(self, attach_type: int, error: KernelError) -> str:
        message = f"cannot attach {hook_name(attach_type)} to cgroup {self._cgroup}: {error}"
        if error.errno == errno.EPERM:
            message += (
                "; either CAP_NET_ADMIN and CAP_BPF are missing, or a program is attached there "
                "that tolerates no other (bpftool cgroup show names it)"
            )
        return message

    def undo(self) -> None:
        """Give the hooks back the programs they had; what was attached newly is detached."""
        for link, program in reversed(self._replaced):
            self._try_undo(link, program)
        for link in self._created:
            self._try_undo(link, None)

    def _try_undo(self, link: int, program: int | None) -> None:
        try:
            if program is None:
                syscalls.link_detach(link)
            else:
                syscalls.link_update(link, program)
        except KernelError as error:
            # The other hooks still deserve to be undone.
            _log.error("hook_not_restored", cgroup=str(self._cgroup), error=str(error))

    def close(self) -> None:
        """Close what was opened; pinned links live on."""
        for fd in (*self._created, self._cgroup_fd):
            os.close(fd)


class HookState(NamedTuple):
    """Who runs at one hook of a cgroup, in the order in which they run."""

    hook: str
    before: tuple[str, ...]
    """Other people's programs that run before ours: ``name (id)``."""
    attached: bool
    """Whether ours is there."""
    after: tuple[str, ...]
    """Those that run after ours, and so have the last word."""


def inspect(cgroup: Path, our_links: Mapping[str, int]) -> tuple[HookState, ...]:
    """Ask the kernel who is attached to a cgroup at each hook. ``our_links``: descriptors by hook name.

    Raises:
        CgroupError: the path is no cgroup.
        KernelError: the kernel does not answer (CAP_NET_ADMIN).
    """
    ours = {name: syscalls.link_info(fd).program_id for name, fd in our_links.items()}
    cgroup_fd = open_cgroup(cgroup)
    try:
        return tuple(_hook_state(cgroup_fd, hook, ours.get(hook_name(hook))) for hook in AttachType)
    finally:
        os.close(cgroup_fd)


def _hook_state(cgroup_fd: int, attach_type: AttachType, our_program: int | None) -> HookState:
    programs = syscalls.program_query(cgroup_fd, attach_type)
    place = programs.index(our_program) if our_program in programs else len(programs)
    before, after = programs[:place], programs[place + 1 :]
    attached = place < len(programs)
    return HookState(hook_name(attach_type), _names(before), attached, _names(after))


def _names(programs: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(_name(program) for program in programs)


def _name(program: int) -> str:
    try:
        fd = syscalls.program_open(program)
    except KernelError as error:
        # Names of other people's programs take CAP_SYS_ADMIN.
        return f"unnamed ({program})" if error.errno == errno.EPERM else f"gone meanwhile ({program})"
    try:
        return f"{syscalls.program_info(fd).name} ({program})"
    finally:
        os.close(fd)
