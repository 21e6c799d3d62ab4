# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.kernels [SERIES]...`: the kernel tests on each kernel of kernels.txt, and what came of them.

Results of all tests are kept in .kernels; once there is one of each kernel of the list they make docs/kernels.md, whose
rows can so be renewed one by one. `--run COMMAND` runs another command in the guests instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tools.checkout import CHECKOUT, current_commit
from tools.kernels.machine import MachineError, run_in
from tools.kernels.packages import Kernel, KernelCache, KernelPackageError
from tools.kernels.report import KernelReport, document, read_report, terminal_table

LIST = Path(__file__).with_name("kernels.txt")
RESULTS = CHECKOUT / ".kernels"
KEPT = RESULTS / "reports"
DOCUMENT = CHECKOUT / "docs" / "kernels.md"
LIMIT = 7200.0  # seconds, for one kernel
ALL_TESTS = "tests/kernel"
TEST_LIMIT = 1800  # seconds, for one test: everything is 10 to 30 times slower there
GUEST = """
cd {checkout}
export CI=true KUBEPROXY_EBPF_NO_SKIP=1 HOME=/root
{python} - >$RESULTS/verdicts <<'END'
from kubeproxy_ebpf.datapath.features import probe_verdicts
print(probe_verdicts().detail)
END
{command}
"""
PYTEST = (
    "-m pytest -m kernel --color=no --durations=10 -o timeout={limit} -o cache_dir=/run/pytest"
    " --junitxml=$RESULTS/junit.xml {tests}"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A line of kernels.txt."""

    series: str
    debian: str


def wanted_kernels(series: list[str]) -> list[Wanted]:
    """Read the list; `series` chooses from it, nothing means all.

    Raises KernelPackageError for a series that is not in it.
    """
    lines = [line.split() for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    listed = {name: Wanted(name, debian) for name, debian in lines}
    if unknown := set(series) - set(listed):
        message = f"{', '.join(unknown)} is not in {LIST}, which has {', '.join(listed)}"
        raise KernelPackageError(message)
    return [listed[name] for name in series or listed]


def test(kernel: Kernel, command: str) -> KernelReport:
    """Run a command on a kernel; its console and its results stay in RESULTS."""
    console = RESULTS / f"{kernel.release}.console"
    results = RESULTS / kernel.release
    script = GUEST.format(checkout=shlex.quote(str(CHECKOUT)), python=sys.executable, command=command)
    print(f"{kernel.release}: running; console in {console}", flush=True)
    result = run_in(kernel, script, console=console, results=results, limit=LIMIT)
    verdicts = (results / "verdicts").read_text().strip()
    junit = results / "junit.xml"
    if junit.exists():
        return read_report(kernel.release, verdicts, result.seconds, junit)
    print(console.read_text(errors="replace"))
    failed = {command: f"exit status {result.status}"} if result.status else {}
    return KernelReport(kernel.release, verdicts, result.seconds, passed=not failed, failed=failed)


def kernel_or_error(cache: KernelCache, wanted: Wanted) -> Kernel | KernelReport:
    """Get a kernel, or the report that says why there is none."""
    try:
        return cache.get(wanted.series, wanted.debian)
    except KernelPackageError as error:
        return KernelReport(wanted.series, "not known", failed={"the package": str(error)})


def report_of(kernel: Kernel | KernelReport, command: str) -> KernelReport:
    """Run a command on a kernel; a machine that does not work is a failure, too. Prints what came of it."""
    if isinstance(kernel, Kernel):
        try:
            report = test(kernel, command)
        except MachineError as error:
            report = KernelReport(kernel.release, "not known", failed={"the machine": str(error)})
    else:
        report = kernel
    print(terminal_table([report]), flush=True)
    return report


def keep(series: str, report: KernelReport) -> None:
    """Keep a report in place of an earlier one."""
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{series}.json").write_text(json.dumps(asdict(report), indent=1))


def write_document() -> None:
    """Write the page from the newest report of each kernel, if there is one of each."""
    files = [KEPT / f"{one.series}.json" for one in wanted_kernels([])]
    missing = [path.stem for path in files if not path.exists()]
    if missing:
        print(f"{DOCUMENT.name} is written once {', '.join(missing)} was run, too")
        return
    rows = [KernelReport(**json.loads(path.read_text())) for path in files]
    DOCUMENT.write_text(document(rows, "make test-kernels", qemu_version()))


def run(arguments: argparse.Namespace) -> int:
    """Run everything that was asked for; 1 if anything failed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubeproxy-ebpf" / "kernels"
    RESULTS.mkdir(exist_ok=True)
    cache = KernelCache(folder)
    command = arguments.run or f"{sys.executable} {PYTEST.format(limit=TEST_LIMIT, tests=arguments.tests)}"
    keeps = not arguments.run and arguments.tests == ALL_TESTS
    wanted = wanted_kernels(arguments.series)
    commit = current_commit()

    def run_one(series: str, kernel: Kernel | KernelReport) -> KernelReport:
        report = replace(report_of(kernel, command), commit=commit)
        if keeps:
            keep(series, report)  # now: the others may take hours
        return report

    kernels = [kernel_or_error(cache, one) for one in wanted]
    # Each guest has one processor, and keeps one of this machine's busy.
    with ThreadPoolExecutor(os.cpu_count()) as guests:
        reports = list(guests.map(run_one, (one.series for one in wanted), kernels))
    print(f"\n{terminal_table(reports)}")
    if keeps:
        write_document()
    return 0 if all(report.good for report in reports) else 1


def qemu_version() -> str:
    """Say which emulator it is."""
    shown = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True).stdout
    return shown.split("version ")[1].split()[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tools.kernels", description=__doc__)
    parser.add_argument("series", nargs="*", help="of kernels.txt; all of them by default")
    parser.add_argument("--tests", default=ALL_TESTS, help="what to give to pytest")
    parser.add_argument("--run", metavar="COMMAND", help="run this in the guests in place of pytest")
    sys.exit(run(parser.parse_args()))
