# SPDX-License-Identifier: Apache-2.0
"""The command line: help, versions, flags, errors, and how log lines look."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import structlog
from typer.testing import CliRunner

from kubeproxy_ebpf import __version__
from kubeproxy_ebpf.cli.log_output import configure_logging
from kubeproxy_ebpf.cli.main import app
from kubeproxy_ebpf.cli.serve import serve
from kubeproxy_ebpf.config import Configuration, LogFormat, LogLevel
from kubeproxy_ebpf.config.keys import KEYS

runner = CliRunner()


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the agent's program as a function: another one in this process would be the end of the tests."""
    monkeypatch.setattr("kubeproxy_ebpf.cli.run.launch", lambda *arguments: sys.exit(serve(*arguments)))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Configuration]:
    """Put a recorder in the agent's place; return the configurations it was started with."""
    configurations: list[Configuration] = []

    def record(configuration: Configuration) -> int:
        configurations.append(configuration)
        return 7

    monkeypatch.setattr("kubeproxy_ebpf.agent.run", record)
    return configurations


def test_help_names_every_verb() -> None:
    """Help without arguments, and with -h."""
    for arguments in ([], ["-h"], ["--help"]):
        text = runner.invoke(app, arguments).output
        assert all(f"\n  {verb} " in text for verb in ("run", "check", "dump", "unload", "version"))


def test_help_of_run_names_every_key() -> None:
    """Each key is a flag of run, with its default."""
    text = runner.invoke(app, ["run", "--help"], terminal_width=200).output
    for key in KEYS:
        assert f"  {key.flag} " in text
    assert text.count("Default:") == len(KEYS)


def test_version() -> None:
    """The version, for people and programs."""
    assert runner.invoke(app, ["version"]).output.startswith(f"kubeproxy-ebpf {__version__} (Python ")
    assert json.loads(runner.invoke(app, ["version", "--json"]).output)["agent"] == __version__


def test_run_hands_over_the_configuration(started: list[Configuration], tmp_path: Path) -> None:
    """Flags and file reach the agent, whose exit code is the command's."""
    file = tmp_path / "c.yaml"
    file.write_text("auditPeriod: 5s\nmasqueradeAll: true\n")
    arguments = ["run", "--config", str(file), "--no-masquerade-all", "--exclude-cidrs", "10.0.0.0/8,fd00::/8"]
    arguments += ["--exclude-cidrs", "192.0.2.0/24", "--map-sizes", "slots=5", "--node-name", "n"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 7
    (configuration,) = started
    assert configuration.node_name == "n"
    assert configuration.audit_period == 5
    assert configuration.settings.masquerade_all is False
    assert list(map(str, configuration.settings.exclude_cidrs)) == ["10.0.0.0/8", "fd00::/8", "192.0.2.0/24"]
    assert configuration.map_sizes.slots == 5


def test_run_logs_what_a_kube_proxy_file_is_good_for(started: list[Configuration], tmp_path: Path) -> None:
    """Fields without effect are one log line, unknown ones a warning."""
    file = tmp_path / "config.conf"
    file.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n"
        "ipvs: {scheduler: lc, strictARP: true}\noomScoreAdj: -999\nxyzzy: 1\n"
    )
    result = runner.invoke(app, ["run", "--config", str(file), "--log-format", "json"])
    assert len(started) == 1
    used, unknown = map(json.loads, result.stderr.splitlines())
    assert (used["event"], used["level"], used["mode"]) == ("kube_proxy_configuration_used", "info", "ipvs")
    assert used["without_effect"] == ["ipvs.scheduler", "ipvs.strictARP", "oomScoreAdj"]
    assert (unknown["event"], unknown["level"]) == ("kube_proxy_configuration_fields_unknown", "warning")
    assert unknown["fields"] == ["xyzzy"]


@pytest.mark.parametrize("verb", ["run", "unload", "dump"])
def test_a_bad_configuration_is_one_message(verb: str, tmp_path: Path) -> None:
    """A named error is a message on standard error, without a traceback."""
    arguments = [verb, *(["services"] if verb == "dump" else []), "--config", str(tmp_path / "missing.yaml")]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: the configuration has 1 error:\n"
        f"  {tmp_path}/missing.yaml: it cannot be read (No such file or directory); "
        "name a file that exists and may be read, or leave --config out\n"
    )


def test_without_a_source_it_says_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names neither kubeconfig nor manifests, outside a pod, learns of both."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    result = runner.invoke(app, ["run"])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: no source of Services: name a kubeconfig with --kubeconfig or a folder of manifests with --manifests; "
        "in a pod neither is needed\n"
    )


def test_a_kubeconfig_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    """It is named with the remedy, before anything is loaded."""
    result = runner.invoke(app, ["run", "--kubeconfig", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tmp_path}/none: it cannot be read (No such file or directory); "
        "name a file that exists and may be read\n"
    )


def test_unknown_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, started: list[Configuration]) -> None:
    """What nobody has foreseen is not made to look like a message."""
    monkeypatch.setattr("kubeproxy_ebpf.cli.serve.configure_logging", lambda *_: 1 // 0)
    result = runner.invoke(app, ["run"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert started == []


@pytest.mark.parametrize("arguments", [["fly"], ["run", "--fly"], ["dump", "everything"], ["version", "more"]])
def test_wrong_use(arguments: list[str]) -> None:
    """A command line that makes no sense has exit code 2."""
    assert runner.invoke(app, arguments).exit_code == 2


def test_unload_without_anything(tmp_path: Path) -> None:
    """Where nothing is, nothing is to be removed."""
    result = runner.invoke(app, ["unload", "--bpffs", str(tmp_path)])
    assert result.output == f"nothing to remove in {tmp_path}/kubeproxy-ebpf\n"
    assert result.exit_code == 0


def test_module_is_the_command() -> None:
    """Where the command is not installed, the module is it; errors are messages there, too."""
    command = [sys.executable, "-m", "kubeproxy_ebpf.cli.main", "run", "--audit-period", "never"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: the configuration has 1 error:\n  command line: --audit-period: 'never'")


def test_start_is_light() -> None:
    """Starting the command line imports nothing that only some verbs need."""
    heavy = ["kopf", "kubernetes", "pyroute2", "_cffi_backend", "structlog", "rich.table"]
    program = f"import sys, kubeproxy_ebpf.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_full_disk_is_a_message() -> None:
    """Where data cannot be written the error says so, without a traceback, and the exit code is 1."""
    command = [sys.executable, "-m", "kubeproxy_ebpf.cli.main", "version"]
    with Path("/dev/full").open("w") as full:
        for arguments in ([], ["--json"]):
            done = subprocess.run([*command, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            message = "cannot write to standard output: No space left on device; make room, or let it lead elsewhere"
            assert done.stderr == f"error: {message}\n"
            assert done.returncode == 1


def test_agent_is_light() -> None:
    """The agent's program has nothing that only the command line or another source needs."""
    heavy = [
        "typer",
        "pydantic",
        "rich",
        "kopf",
        "kubernetes",
        "aiohttp",
        "pyroute2.ndb",
        "pyroute2.iproute",
        "sqlite3",
    ]
    program = f"import sys, kubeproxy_ebpf.cli.serve; print([name for name in {heavy!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_check_with_a_bad_configuration(tmp_path: Path) -> None:
    """An invalid configuration is one of check's findings."""
    file = tmp_path / "c.yaml"
    file.write_text("logLevel: loud\n")
    result = runner.invoke(app, ["check", "--json", "--config", str(file)])
    assert result.exit_code == 1
    findings = {one["name"]: one for one in json.loads(result.stdout)}
    assert findings["configuration"]["ok"] is False
    assert f"{file}:1: logLevel: 'loud' is unknown" in findings["configuration"]["detail"]


def test_check_prints_a_table(tmp_path: Path) -> None:
    """Each finding is a line; a folder that is no bpffs is named with its remedy."""
    result = runner.invoke(app, ["check", "--bpffs", str(tmp_path)])
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["check", "result", "detail", "remedy"]
    assert ["configuration", "ok", "valid"] in [line.split() for line in lines]
    (bpffs,) = (line for line in lines if line.startswith("bpffs "))
    assert "failed" in bpffs
    assert "connections are not tried while something is missing" in lines[-1]
    assert str(tmp_path) in bpffs
    assert result.exit_code == 1


def test_json_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object per event; levels below the chosen one are not there; other libraries' warnings are."""
    configure_logging(LogLevel.INFO, LogFormat.JSON)
    log = structlog.get_logger("test")
    log.debug("quiet")
    log.info("something_happened", count=3, where=Path("/x"))
    logging.getLogger("asyncio").warning("a %s", "warning")
    logging.getLogger("asyncio").info("chatter")
    first, second = map(orjson.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["level"], first["count"], first["where"]) == ("something_happened", "info", 3, "/x")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["level"]) == ("a warning", "warning")


def test_console_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines for people have no colours where there is no terminal."""
    configure_logging(LogLevel.ERROR, LogFormat.CONSOLE)
    configure_logging(LogLevel.WARNING, LogFormat.CONSOLE)
    structlog.get_logger("test").warning("something_odd", count=3)
    logging.getLogger("kopf").error("broken")
    first, second = capsys.readouterr().err.splitlines()
    assert "[warning  ] something_odd" in first
    assert "count=3" in first
    assert "\x1b" not in first
    assert "broken" in second


def test_auto_is_json_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The default format is for programs when no person reads."""
    configure_logging(LogLevel.INFO, LogFormat.AUTO)
    structlog.get_logger("test").info("something_happened")
    assert orjson.loads(capsys.readouterr().err)["event"] == "something_happened"
