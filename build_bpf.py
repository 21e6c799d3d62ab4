# SPDX-License-Identifier: Apache-2.0
"""Compiles the C of this package: ``bpf_src/*.bpf.c`` to CO-RE objects, and the binding to libbpf to an extension.

Hatch runs it when it builds a wheel or an editable install; ``python build_bpf.py`` compiles in place. What was
compiled once from the same sources, headers, flags and compiler is taken from a cache
(``~/.cache/kubeproxy-ebpf/build``), and a file that is already right is not touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "bpf_src"
OBJECTS = ROOT / "kubeproxy_ebpf" / "bpf"
BINDING = ROOT / "kubeproxy_ebpf" / "datapath" / "libbpf"
BINDING_MODULE = "kubeproxy_ebpf.datapath.libbpf._libbpf"
STABLE_ABI = "cp311"
"""The oldest Python the extension is for; Py_LIMITED_API makes it serve all later ones too."""

PACKAGES = "apt-get install clang llvm gcc libbpf-dev linux-libc-dev"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
BPF_FLAGS = (
    # As the kernel itself is: addresses are read by words and by halves.
    *("-O2", "-g", "-fno-strict-aliasing", "-target", "bpf", "-mcpu=v3", *WARNINGS),
    # Objects are the same wherever they are built, and name no folder of the builder's.
    *(f"-ffile-prefix-map={SOURCES}=bpf_src", "-fdebug-compilation-dir", "."),
)
BINDING_FLAGS = ("-O2", "-Wall", "-Wextra", "-Wno-unused-parameter")  # cffi's callbacks ignore theirs


class BuildError(Exception):
    """The C could not be compiled. The message says what is missing, or what the compiler said."""


def tool(*names: str) -> str:
    """Return the path of the first tool that is installed.

    Raises:
        BuildError: none is.
    """
    for name in names:
        if path := shutil.which(name):
            return path
    msg = f"{names[0]} is not installed: {PACKAGES}"
    raise BuildError(msg)


def run(command: Sequence[str], cwd: Path) -> bytes:
    """Run a tool and return its standard output.

    Raises:
        BuildError: it failed; with what it said, and the packages if a header is what it lacks.
    """
    result = subprocess.run(command, cwd=cwd, capture_output=True, check=False)  # noqa: S603 -- compilers, and arguments of this file
    if result.returncode == 0:
        return result.stdout
    said = result.stderr.decode(errors="replace")
    remedy = f"\na header is missing: {PACKAGES}" if "file not found" in said or "No such file" in said else ""
    msg = f"{' '.join(command)}\n{said}{remedy}"
    raise BuildError(msg)


def digest(*parts: bytes | str) -> str:
    """Return what names the output of these inputs in the cache."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def cache_folder() -> Path:
    """Return the folder of compiled files, which may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kubeproxy-ebpf" / "build"


def provide(target: Path, key: str, compile_to: Callable[[Path], None]) -> None:
    """Make ``target`` the file that ``key`` names, compiling it only if the cache does not have it."""
    cached = cache_folder() / key
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            output = Path(folder) / target.name
            compile_to(output)
            output.rename(cached)
    if target.exists() and target.read_bytes() == cached.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Whoever has the old file mapped or open keeps it.
    incoming = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(cached, incoming)
    incoming.rename(target)


def system_includes() -> tuple[str, ...]:
    """Return the flags for the kernel's headers: for the bpf target clang leaves out the machine's own folder."""
    multiarch = sysconfig.get_config_var("MULTIARCH")
    return (f"-I/usr/include/{multiarch}",) if multiarch else ()


def build_object(source: Path) -> None:
    """Compile one BPF program file, with BTF and without what only a debugger reads."""
    clang, strip = tool("clang"), tool("llvm-strip", "llvm-strip-14")
    flags = (*BPF_FLAGS, *system_includes())
    # The preprocessed text holds every header's content, and so all that the compiler reads.
    text = run((clang, *flags, "-E", source.name), SOURCES)
    version = run((clang, "--version"), SOURCES)

    def compile_to(output: Path) -> None:
        run((clang, *flags, "-c", source.name, "-o", str(output)), SOURCES)
        run((strip, "-g", str(output)), SOURCES)

    key = digest(text, version, " ".join(flags))
    provide(OBJECTS / source.name.replace(".bpf.c", ".bpf.o"), key, compile_to)


def build_binding() -> None:
    """Compile the cffi extension ``_libbpf.abi3.so`` from ``cdef.h`` and ``source.c``."""
    gcc = tool("gcc")
    declarations = run((gcc, "-E", "-P", "-DKUBEPROXY_CFFI", f"-I{SOURCES}", "cdef.h"), BINDING).decode()
    source = (BINDING / "source.c").read_text()
    text = run((gcc, "-E", f"-I{SOURCES}", "source.c"), BINDING)
    inputs = (declarations, source, text, run((gcc, "--version"), BINDING), " ".join(BINDING_FLAGS))
    abi = (importlib.metadata.version("cffi"), STABLE_ABI, sysconfig.get_platform())

    def compile_to(output: Path) -> None:
        compile_binding(declarations, source, output)

    provide(BINDING / "_libbpf.abi3.so", digest(*inputs, *abi), compile_to)


def compile_binding(declarations: str, source: str, output: Path) -> None:
    """Let cffi generate and compile the extension.

    Raises:
        BuildError: the compiler refused; it printed why.
    """
    from cffi import FFI, VerificationError  # noqa: PLC0415 -- only needed where something has to be compiled

    ffi = FFI()
    ffi.cdef(declarations)
    ffi.set_source(
        BINDING_MODULE,
        source,
        libraries=["bpf"],
        include_dirs=[str(SOURCES)],
        define_macros=[("Py_LIMITED_API", "0x030b0000")],
        py_limited_api=True,
        extra_compile_args=list(BINDING_FLAGS),
    )
    # setuptools takes every folder that it finds around it for a package of ours.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            built = ffi.compile(tmpdir=folder)
        except VerificationError as error:
            msg = f"the binding to libbpf does not compile ({error}); if a header is missing: {PACKAGES}"
            raise BuildError(msg) from error
        shutil.copy(built, output)


def build() -> None:
    """Compile everything in place.

    Raises:
        BuildError: something is missing, or does not compile.
    """
    sources = sorted(SOURCES.glob("*.bpf.c"))
    for source in sources:
        build_object(source)
    expected = {source.name.replace(".bpf.c", ".bpf.o") for source in sources}
    for stale in OBJECTS.glob("*.bpf.o"):
        if stale.name not in expected:
            stale.unlink()
    build_binding()


def wheel_tag() -> str:
    """Return the tag of a wheel that holds the extension."""
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"{STABLE_ABI}-abi3-{platform}"


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # outside a build, nobody asks for the hook
    pass
else:

    class CompileHook(BuildHookInterface[Any]):
        """Compiles before a wheel or an editable install is put together."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 -- Hatch's signature
            """Compile, and say that the wheel is for this platform."""
            build()
            build_data["pure_python"] = False
            build_data["tag"] = wheel_tag()


if __name__ == "__main__":
    try:
        build()
    except BuildError as error:
        sys.exit(f"build_bpf: {error}")
