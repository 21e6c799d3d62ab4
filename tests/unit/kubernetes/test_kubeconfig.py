# SPDX-License-Identifier: Apache-2.0
"""What a kubeconfig says, and what is wrong with one that does not."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from kubeproxy_ebpf.kubernetes.access import Access
from kubeproxy_ebpf.kubernetes.errors import KubeconfigError, LoginFailedError
from kubeproxy_ebpf.kubernetes.kubeconfig import read_kubeconfig, read_service_account
from kubeproxy_ebpf.kubernetes.login import Login
from tests.unit.kubernetes.following import PATIENCE, wait_until

PEM = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"
CLUSTER = "clusters: [{name: c, cluster: {server: s, certificate-authority%s}}]\n"
ENCODED = base64.b64encode(PEM.encode()).decode()


def write(folder: Path, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> Path:
    """Write a kubeconfig with another context beside the one that counts."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "other", "user": "other"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [
            {"name": "other", "cluster": {"server": "https://other"}},
            {"name": "c", "cluster": {"server": "https://10.0.0.1:6443/", **(cluster or {})}},
        ],
        "users": [{"name": "other", "user": {"token": "wrong"}}, {"name": "u", "user": user or {}}],
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(document))
    return file


def test_data_in_it(tmp_path: Path) -> None:
    """Certificates are written out in it, as kubeadm does."""
    cluster = {"certificate-authority-data": ENCODED, "tls-server-name": "kubernetes", "proxy-url": "http://p:3128"}
    user = {"client-certificate-data": ENCODED, "client-key-data": ENCODED}
    found = read_kubeconfig(write(tmp_path, cluster, user))
    assert found.access.servers == ("https://10.0.0.1:6443",)
    assert found.files == (tmp_path / "kubeconfig",)
    trust = found.access.trust
    assert (trust.authorities, trust.certificate, trust.private_key) == (PEM, PEM, PEM)
    assert (trust.server_name, trust.proxy_url, trust.is_insecure) == ("kubernetes", "http://p:3128", False)


def test_files_beside_it(tmp_path: Path) -> None:
    """Paths are relative to the kubeconfig's folder; all files are remembered, to notice when they change."""
    (tmp_path / "pki").mkdir()
    for name in ("ca.crt", "client.crt", "client.key"):
        (tmp_path / "pki" / name).write_text(PEM + name)
    cluster = {"certificate-authority": "pki/ca.crt"}
    user = {"client-certificate": "pki/client.crt", "client-key": str(tmp_path / "pki" / "client.key")}
    found = read_kubeconfig(write(tmp_path, cluster, user))
    trust = found.access.trust
    assert [text.rpartition("\n")[2] for text in (trust.authorities, trust.certificate, trust.private_key)] == [
        "ca.crt",
        "client.crt",
        "client.key",
    ]
    assert len(found.files) == 4


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "t0k3n"}, "Bearer t0k3n"),
        ({"token": "t0k3n", "tokenFile": "token"}, "Bearer from-file"),
        ({"username": "me", "password": "secret"}, "Basic bWU6c2VjcmV0"),
        ({}, None),
    ],
    ids=["token", "token file goes before it", "password", "nothing"],
)
def test_who_one_is(tmp_path: Path, user: dict[str, Any], header: str | None) -> None:
    """What stands for the user becomes a header."""
    (tmp_path / "token").write_text("from-file\n")
    headers = read_kubeconfig(write(tmp_path, user=user)).access.headers()
    assert headers == ({"Authorization": header} if header else {})


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """Whatever prints an access prints nobody's secret."""
    user = {"token": "s3cret", "client-certificate-data": ENCODED, "client-key-data": ENCODED, "password": "hidden"}
    shown = repr(read_kubeconfig(write(tmp_path, user=user)).access)
    assert "s3cret" not in shown
    assert "hidden" not in shown
    assert "abc" not in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "it is not YAML"),
        ("", "it is no mapping"),
        ("- a\n", "it is no mapping"),
        ("current-context: a\n", "contexts has no entry named 'a'"),
        ("current-context: a\ncontexts: 7\n", "contexts has no entry named 'a'"),
        ("contexts: [{name: '', context: {cluster: c}}]\n", "clusters has no entry named 'c'"),
        (
            "contexts: [{name: '', context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: s}}]\n",
            "users has no entry named 'u'",
        ),
        ("contexts: [{name: '', context: {cluster: c}}]\nclusters: [{name: c, cluster: {}}]\n", "has no server"),
        (
            "contexts: [{name: '', context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: 7}}]\n",
            "server is not",
        ),
        (
            "contexts: [{name: '', context: {cluster: c}}]\n" + CLUSTER % ": '', insecure-skip-tls-verify: 'false'",
            "insecure-skip-tls-verify is not a boolean",
        ),
        (
            "contexts: [{name: '', context: {cluster: c}}]\n" + CLUSTER % "-data: '*'",
            "is not base64",
        ),
        (
            "contexts: [{name: '', context: {cluster: c}}]\n" + CLUSTER % ": none",
            "none: it cannot be read",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    """Each error names the file and the remedy."""
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(KubeconfigError, match=message) as caught:
        read_kubeconfig(file)
    assert str(tmp_path) in str(caught.value)


def test_service_account(tmp_path: Path) -> None:
    """A pod finds everything in its environment and one folder; IPv6 addresses get their brackets."""
    (tmp_path / "token").write_text("pod\n")
    (tmp_path / "ca.crt").write_text(PEM)
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = read_service_account(tmp_path, environment).access
    assert access.servers == ("https://[fd00::1]:443",)
    assert access.headers() == {"Authorization": "Bearer pod"}
    assert access.trust.authorities == PEM


def access_of(login: Login) -> Access:
    """Return what a request would use now."""
    return asyncio.run(login.access())


def test_files_that_change_are_read_again(tmp_path: Path) -> None:
    """As the token of a pod is, every hour; a file that is gone for a moment is an error that passes."""
    (tmp_path / "token").write_text("one")
    login = Login(write(tmp_path, user={"tokenFile": "token"}), ())
    assert access_of(login).token == "one"
    (tmp_path / "next").write_text("two")
    (tmp_path / "next").rename(tmp_path / "token")
    login._renewed_at = 0.0
    assert access_of(login).token == "two"
    (tmp_path / "token").unlink()
    login._renewed_at = 0.0
    with pytest.raises(LoginFailedError, match="token: it cannot be read"):
        access_of(login)
    (tmp_path / "token").write_text("three")
    login._renewed_at = 0.0
    assert access_of(login).token == "three"


def test_api_servers_take_the_servers_place(tmp_path: Path) -> None:
    """Certificates and credentials stay the kubeconfig's."""
    login = Login(write(tmp_path, user={"token": "t"}), ("https://a:6443", "https://b:6443"))
    assert access_of(login).servers == ("https://a:6443", "https://b:6443")
    assert access_of(login).token == "t"


def plugin(folder: Path, status: dict[str, Any]) -> dict[str, Any]:
    """Write an exec plug-in that counts how often it is run; return the user that has it."""
    program = folder / "plugin"
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    program.write_text(f"#!/bin/sh\necho . >>{folder}/runs\ncat <<'END'\n{json.dumps(credential)}\nEND\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": credential["apiVersion"], "command": "./plugin", "interactiveMode": "Never"}}


def test_exec_plugin(tmp_path: Path) -> None:
    """It runs once, and again when the server refuses."""
    login = Login(write(tmp_path, user=plugin(tmp_path, {"token": "from-plugin"})), ())
    assert access_of(login).token == "from-plugin"
    assert access_of(login).token == "from-plugin"
    assert (tmp_path / "runs").read_text() == ".\n"
    login._renewed_at = 0.0
    asyncio.run(login.renew())
    assert (tmp_path / "runs").read_text() == ".\n.\n"


def test_exec_plugin_with_certificates_that_expire(tmp_path: Path) -> None:
    """What it gives is used until shortly before it expires."""
    now = time.time()  # noqa: TID251 - what credentials name
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 10))
    status = {"clientCertificateData": PEM, "clientKeyData": PEM, "expirationTimestamp": soon}
    login = Login(write(tmp_path, user=plugin(tmp_path, status)), ())
    access = access_of(login)
    assert (access.trust.certificate, access.trust.private_key) == (PEM, PEM)
    assert access.expires is not None
    assert abs(access.expires - now - 10) < 5
    login._renewed_at = 0.0
    access_of(login)
    assert (tmp_path / "runs").read_text() == ".\n.\n"


def test_exec_plugin_that_fails(tmp_path: Path) -> None:
    """Its complaint is in the error."""
    user = plugin(tmp_path, {})
    (tmp_path / "plugin").write_text("#!/bin/sh\necho 'no such account' >&2\nexit 3\n")
    login = Login(write(tmp_path, user=user), ())
    with pytest.raises(LoginFailedError, match="no such account"):
        access_of(login)
    assert os.access(tmp_path / "plugin", os.X_OK)


def test_exec_plugin_that_does_not_end(tmp_path: Path) -> None:
    """Whoever gives up waiting leaves no plug-in behind."""
    user, pid_file = plugin(tmp_path, {}), tmp_path / "pid"
    (tmp_path / "plugin").write_text("#!/bin/sh\necho $$ >pid.new\nmv pid.new pid\nexec sleep 1h\n")
    login = Login(write(tmp_path, user=user), ())

    async def give_up() -> None:
        task = asyncio.create_task(login.access())
        async with asyncio.timeout(PATIENCE):
            while not pid_file.exists():
                assert not task.done(), task.exception()
                await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    plugin_pid = int(pid_file.read_text())
    wait_until(lambda: not is_running(plugin_pid), "the plug-in to end")


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
