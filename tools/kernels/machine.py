# SPDX-License-Identifier: Apache-2.0
"""A kernel and a shell script -> what the script wrote and its exit status, from a virtual machine.

The guest has this machine's files (virtiofs, read-only, under a layer in memory), so the interpreter, the virtual
environment, the repository and the tools are the same, at the same paths; only the kernel differs. It has one
processor and no hardware acceleration: slow, but it runs wherever QEMU does.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
import tarfile
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.kernels.packages import Kernel

HERE = Path(__file__).parent
DRIVERS = ("virtio_pci", "virtiofs", "overlay")
VIRTIOFSD = ("virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
MEMORY = "3G"
PROCESSOR = "max,-cx16,-la57,-erms"
"""QEMU 7.2 emulates cmpxchg16b wrongly; four levels of page tables are walked faster; rep movsb copies bytewise."""
SOCKET_WAIT = 10.0  # seconds


class MachineError(Exception):
    """The virtual machine cannot be started, or ended without saying how its command did."""


@dataclass(frozen=True, slots=True)
class MachineResult:
    """How a command did in the guest."""

    status: int
    """The command's exit status."""
    seconds: float
    """From power on to power off."""


def run_in(kernel: Kernel, script: str, *, console: Path, results: Path, limit: float) -> MachineResult:
    """Run a shell script as root of a machine with that kernel.

    `console` gets all it prints; `results` becomes a folder of what it wrote to $RESULTS.
    Raises MachineError when it does not end within `limit` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="kubeproxy-ebpf-") as folder:
        work = Path(folder)
        _write_initramfs(kernel, script, work)
        started = time.monotonic()
        with _files(work / "files.sock"):
            _boot(kernel, work, console, limit)
        seconds = time.monotonic() - started
        _unpack(work / "results", results, console)
    return MachineResult(int((results / "status").read_text()), seconds)


def _write_initramfs(kernel: Kernel, script: str, work: Path) -> None:
    tree = work / "tree"
    for folder in ("bin", "drivers", "guest"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(_program("busybox"), tree / "bin" / "busybox")
    shutil.copy(HERE / "init", tree / "init")
    (tree / "init").chmod(0o755)
    shutil.copy(HERE / "node", tree / "guest" / "node")
    (tree / "guest" / "command").write_text(script)
    (tree / "guest" / "modules-folder").write_text(str(kernel.modules.resolve()))
    for place, driver in enumerate(kernel.modules_for(DRIVERS)):
        name = f"{place:02}-{driver.name.removesuffix('.xz')}"
        content = driver.read_bytes()
        (tree / "drivers" / name).write_bytes(lzma.decompress(content) if driver.suffix == ".xz" else content)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with (work / "initramfs").open("wb") as archive:
        subprocess.run(
            [_program("busybox"), "cpio", "-o", "-H", "newc"],
            input=names.encode(),
            stdout=archive,
            stderr=subprocess.DEVNULL,
            cwd=tree,
            check=True,
        )


@contextmanager
def _files(socket: Path) -> Iterator[None]:
    """Serve this machine's files to the guest while the block runs."""
    program = _program(*VIRTIOFSD)
    usage = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    if "--shared-dir" in usage:
        options = ["--shared-dir=/", "--cache=always", "--sandbox=chroot"]
    else:  # the older one that came with QEMU
        options = ["-o", "source=/,cache=always,sandbox=chroot"]
    with (socket.with_suffix(".log")).open("w") as log:
        server = subprocess.Popen([program, f"--socket-path={socket}", *options], stdout=log, stderr=log)
    try:
        until = time.monotonic() + SOCKET_WAIT
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > until:
                message = f"virtiofsd does not serve files: {socket.with_suffix('.log').read_text().strip()}"
                raise MachineError(message)
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def _boot(kernel: Kernel, work: Path, console: Path, limit: float) -> None:
    command = [
        *(_program("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "pc,accel=tcg,memory-backend=memory", "-cpu", PROCESSOR, "-smp", "1", "-m", MEMORY),
        *("-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on"),
        *("-kernel", str(kernel.image), "-initrd", str(work / "initramfs")),
        *("-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off"),
        *("-chardev", f"socket,id=files,path={work / 'files.sock'}"),
        *("-device", "vhost-user-fs-pci,chardev=files,tag=host"),
        *("-serial", f"file:{console}", "-serial", f"file:{work / 'results'}"),
    ]
    try:
        subprocess.run(command, check=True, timeout=limit, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except subprocess.TimeoutExpired as error:
        message = f"{kernel.release} did not end within {limit:.0f} s; its console is {console}"
        raise MachineError(message) from error
    except subprocess.CalledProcessError as error:
        message = f"QEMU failed with {kernel.release}: {error.stderr.strip()}; its console is {console}"
        raise MachineError(message) from error


def _unpack(archive: Path, results: Path, console: Path) -> None:
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    try:
        with tarfile.open(archive) as files:
            for member in files:
                if content := files.extractfile(member):
                    (results / Path(member.name).name).write_bytes(content.read())
    except tarfile.TarError as error:
        message = f"the guest ended before its command did; its console is {console}"
        raise MachineError(message) from error


def _program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    message = f"{names[0]} is not installed: run `make install-kernels`"
    raise MachineError(message)
