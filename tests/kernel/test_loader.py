# SPDX-License-Identifier: Apache-2.0
"""Loading, going on after a restart, upgrading in place, and refusing: what the kernel holds afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.errors import AttachError, BpffsError, CgroupError, MixedVersionsError, UnknownLayoutError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType
from kubeproxy_ebpf.datapath.libbpf.programs import leave, load_instructions, move_immediate
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap, InsertEntry, Phase
from tests.kernel.conftest import SMALL, CompileObject, Loader
from tests.kernel.processes import run_in
from tests.kernel.scratch import Starter
from tests.kernel.state import attached_programs, connect_error, kernel_state, pinned_ids

HOOKS = {hook.name.lower() for hook in AttachType}


def fill(datapath: loader.Datapath) -> None:
    """Leave something in an array and in a hash that a later test can recognise."""
    datapath.store.publish(ArrayMap.SERVICES, 8 * 5, 0x1122334455667788)
    entry = InsertEntry(Phase.EXPOSE, HashMap.FRONTENDS, b"k" * 20, b"v" * 4)
    assert datapath.store.insert([entry]) == []


def is_filled(datapath: loader.Datapath) -> bool:
    """Whether what :func:`fill` left is there."""
    word = datapath.store.read(ArrayMap.SERVICES, 8 * 5, 8 * 6)
    return int.from_bytes(word, "little") == 0x1122334455667788 and list(datapath.store.entries(HashMap.FRONTENDS)) == [
        (b"k" * 20, b"v" * 4)
    ]


def test_load_attaches_every_hook_and_pins_every_map(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """After the first load each hook runs one program of ours, and maps and links are pinned."""
    datapath = load()
    assert not datapath.restored
    assert attached_programs(scratch_cgroup).keys() == HOOKS
    pinned = pinned_ids(pin_folder)
    assert {name.removeprefix("layout_1/links/") for name in pinned if "links/" in name} == HOOKS
    assert {name.removeprefix("layout_1/maps/") for name in pinned if "maps/" in name} == datapath.store.map_names()


def test_closing_leaves_everything_and_the_next_load_goes_on(
    load: Loader, scratch_cgroup: Path, pin_folder: Path
) -> None:
    """Without an agent the programs stay; the next one finds the same maps with their contents."""
    first = load()
    fill(first)
    first.close()
    before = kernel_state(scratch_cgroup, pin_folder)
    second = load()
    after = kernel_state(scratch_cgroup, pin_folder)
    assert second.restored
    assert is_filled(second)
    assert after.pinned == before.pinned


def test_upgrade_replaces_programs_under_the_same_links(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """A new version's programs take effect in the links that are there."""
    load("ANSWER=1").close()
    before = kernel_state(scratch_cgroup, pin_folder)
    assert run_in(None, scratch_cgroup, connect_error) == "ECONNREFUSED"
    load("ANSWER=0").close()
    after = kernel_state(scratch_cgroup, pin_folder)
    assert run_in(None, scratch_cgroup, connect_error) == "EPERM"
    assert after.pinned == before.pinned
    assert {len(programs) for programs in after.programs.values()} == {1}
    assert not set(after.programs.values()) & set(before.programs.values())


def connect_for_ever() -> Iterator[str]:
    """Yield once as start signal; then each outcome that differs from the one before."""
    outcome = ""
    while True:
        now = connect_error()
        if now != outcome:
            outcome = now
            yield now


def test_upgrade_has_no_moment_without_a_program(load: Loader, scratch_cgroup: Path, background: Starter) -> None:
    """While a refusing version is replaced by a refusing version again and again, nothing ever gets through."""
    load("ANSWER=0").close()
    client = background(None, scratch_cgroup, connect_for_ever)
    assert client.ready == "EPERM"
    for _ in range(10):
        load("ANSWER=0").close()
    load("ANSWER=1").close()
    assert client.next() == "ECONNREFUSED"
    load("ANSWER=0").close()
    assert client.next() == "EPERM"


def test_refused_program_leaves_nothing_and_shows_the_verifier_log(
    load: Loader, scratch_cgroup: Path, pin_folder: Path
) -> None:
    """What the verifier refuses changes nothing, and its reason is in the error."""
    with pytest.raises(loader.LoadError) as caught:
        load("REFUSED")
    assert "sock_release" in str(caught.value)
    assert "R1" in str(caught.value) or "invalid mem access" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 60
    assert attached_programs(scratch_cgroup) == {}
    assert not pin_folder.exists()


def test_refused_upgrade_leaves_the_old_version_running(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """An upgrade that fails keeps programs, maps and pins as they were."""
    first = load("ANSWER=0")
    fill(first)
    first.close()
    before = kernel_state(scratch_cgroup, pin_folder)
    with pytest.raises(loader.LoadError):
        load("REFUSED")
    assert kernel_state(scratch_cgroup, pin_folder) == before
    assert is_filled(load("ANSWER=0"))


def test_other_layout_of_a_map_is_refused(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """Pinned maps that mean something else are named, with what is found, what is expected and the remedy."""
    load().close()
    before = kernel_state(scratch_cgroup, pin_folder)
    with pytest.raises(UnknownLayoutError, match=r"slots has value_size 8, .* expects 16.*kubeproxy-ebpf unload"):
        load("WIDER_SLOT")
    assert kernel_state(scratch_cgroup, pin_folder) == before


@pytest.mark.parametrize("places", [2, 8])
def test_other_size_that_programs_have_built_in_is_refused(load: Loader, places: int) -> None:
    """Where an entry's place depends on the size, neither a larger nor a smaller map can take its contents over."""
    load("PLACES=4").close()
    with pytest.raises(UnknownLayoutError, match=rf"sole_origins has max_entries 4, .* expects {places}"):
        load(f"PLACES={places}")


def test_programs_that_the_agent_does_not_fit_are_refused(load: Loader, pin_folder: Path) -> None:
    """Where programs and agent come from different versions nothing is loaded."""
    with pytest.raises(MixedVersionsError, match=r"slots has entries of 16 bytes, the agent writes 8"):
        load("WIDER_SLOT")
    assert not pin_folder.exists()


@pytest.mark.parametrize("left_behind", ["layout_99", "layout_99_incoming", "layout_99_outgoing"])
def test_other_layout_version_is_refused(load: Loader, pin_folder: Path, left_behind: str) -> None:
    """Whatever another layout's version left, finished or not, is not touched; the message says what to do."""
    (pin_folder / left_behind).mkdir(parents=True)
    with pytest.raises(UnknownLayoutError, match=r"layout 99.*knows layout 1.*kubeproxy-ebpf unload"):
        load()
    assert pinned_ids(pin_folder) == {left_behind: 0}
    with pytest.raises(UnknownLayoutError):
        loader.open_pinned(pin_folder)


def test_upgrade_brings_new_maps_and_takes_old_ones_away(load: Loader, pin_folder: Path) -> None:
    """A version with one more map pins it, the version before removes it again; the others stay the same maps."""
    load().close()
    before = pinned_ids(pin_folder)
    load("NEW_MAP").close()
    assert pinned_ids(pin_folder).keys() - before.keys() == {"layout_1/maps/new_map"}
    load().close()
    assert pinned_ids(pin_folder) == before


def test_hooks_that_a_version_does_not_have_are_detached(load: Loader, scratch_cgroup: Path) -> None:
    """A version with fewer programs leaves none of the older one's behind, and their return is no trouble."""
    load().close()
    load("WITHOUT_IPV6").close()
    assert attached_programs(scratch_cgroup).keys() == {name for name in HOOKS if not name.endswith("6")}
    load().close()
    assert attached_programs(scratch_cgroup).keys() == HOOKS


def test_another_cgroup_is_attached_instead(
    load: Loader, scratch_cgroup: Path, make_cgroup: Callable[[], Path]
) -> None:
    """When the wanted cgroup is another than the links', the hooks move there at once, with the maps they had."""
    first = load()
    fill(first)
    first.close()
    other = make_cgroup()
    second = load(cgroup=other)
    assert attached_programs(scratch_cgroup) == {}
    assert attached_programs(other).keys() == HOOKS
    assert is_filled(second)


def test_links_of_a_removed_cgroup_are_replaced(
    load: Loader, scratch_cgroup: Path, make_cgroup: Callable[[], Path]
) -> None:
    """Links whose cgroup is gone are dead although they are pinned; they are made again."""
    doomed = make_cgroup()
    load(cgroup=doomed).close()
    doomed.rmdir()
    load().close()
    assert attached_programs(scratch_cgroup).keys() == HOOKS


def test_foreign_programs_are_left_alone_and_listed(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """Programs of others at the same cgroup stay through load, upgrade and unload; who runs after ours is known."""
    descriptors = [os.open(scratch_cgroup, os.O_RDONLY)]
    links = []
    for name in ("early", "late"):
        program = load_instructions(AttachType.CONNECT4, name, (move_immediate(0, 1), leave()))
        links.append(syscalls.link_create(program, descriptors[0], AttachType.CONNECT4))
        descriptors += [program, links[-1]]
        load().close()
    pinned = loader.pinned_hooks(pin_folder, scratch_cgroup)
    connect4 = next(state for state in pinned if state.hook == "connect4")
    assert [name.split()[0] for name in connect4.before] == ["early"]
    assert [name.split()[0] for name in connect4.after] == ["late"]
    assert connect4.attached
    foreign = {syscalls.link_info(link).program_id for link in links}
    loader.unload(pin_folder)
    assert attached_programs(scratch_cgroup) == {"connect4": tuple(sorted(foreign))}
    for fd in descriptors:
        os.close(fd)


def test_program_that_tolerates_no_other_is_named_as_reason(
    load: Loader, scratch_cgroup: Path, pin_folder: Path
) -> None:
    """Where somebody attached exclusively the kernel says EPERM; nothing of ours stays, and the message says why."""
    cgroup = os.open(scratch_cgroup, os.O_RDONLY)
    program = load_instructions(AttachType.SENDMSG4, "lonely", (move_immediate(0, 1), leave()))
    syscalls.program_attach(program, cgroup, AttachType.SENDMSG4, 0)
    try:
        with pytest.raises(AttachError, match=r"sendmsg4.*tolerates no other"):
            load()
        assert attached_programs(scratch_cgroup).keys() == {"sendmsg4"}
        assert not pin_folder.exists()
    finally:
        syscalls.program_detach(program, cgroup, AttachType.SENDMSG4)
        os.close(program)
        os.close(cgroup)


def test_path_that_is_no_cgroup_is_refused(load: Loader, tmp_path: Path, pin_folder: Path) -> None:
    """A wrong --cgroup is named, and nothing stays."""
    with pytest.raises(CgroupError, match=r"not in a cgroup v2 file system.*--cgroup"):
        load(cgroup=tmp_path)
    with pytest.raises(CgroupError, match="No such file"):
        load(cgroup=tmp_path / "missing")
    assert not pin_folder.exists()


def test_pin_folder_outside_bpffs_is_refused(
    scratch_cgroup: Path, tmp_path: Path, compile_object: CompileObject
) -> None:
    """A pin folder must be in a BPF file system; the message says how to mount one."""
    with pytest.raises(BpffsError, match="mount -t bpf bpf"):
        loader.load(
            pin_folder=tmp_path / "pins", cgroup=scratch_cgroup, sizes=SMALL, object_path=compile_object("maps.bpf.c")
        )


def test_missing_object_file_is_named(pin_folder: Path, scratch_cgroup: Path, tmp_path: Path) -> None:
    """A package without its programs says so."""
    with pytest.raises(loader.LoadError, match=r"connect.bpf.o.*No such file.*install the package again"):
        loader.load(pin_folder=pin_folder, cgroup=scratch_cgroup, sizes=SMALL, object_path=tmp_path / "connect.bpf.o")
    assert not pin_folder.exists()


def test_missing_capability_is_said(pin_folder: Path, scratch_cgroup: Path, compile_object: CompileObject) -> None:
    """Without the right to load programs the message leads to what is missing, and nothing stays."""
    script = (
        "import sys; from pathlib import Path; from kubeproxy_ebpf.datapath import loader\n"
        "loader.load(pin_folder=Path(sys.argv[1]), cgroup=Path(sys.argv[2]), sizes=loader.MapSizes(),"
        " object_path=Path(sys.argv[3]))"
    )
    command = (sys.executable, "-c", script, pin_folder, scratch_cgroup, compile_object("maps.bpf.c"))
    dropped = "-sys_admin,-bpf,-perfmon,-net_admin"
    result = subprocess.run(
        ("setpriv", f"--bounding-set={dropped}", "--inh-caps=-all", *command),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "EPERM" in result.stderr
    assert "kubeproxy-ebpf check" in result.stderr
    assert not pin_folder.exists()


def test_maps_that_do_not_fit_memory_leave_nothing(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """A size that the kernel cannot give is an error with the map's name, and nothing stays."""
    with pytest.raises(loader.LoadError, match="origins"):
        load(origins=1 << 30)
    assert attached_programs(scratch_cgroup) == {}
    assert not pin_folder.exists()
