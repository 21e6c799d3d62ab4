# SPDX-License-Identifier: Apache-2.0
"""Whom the client trusts, who it is to the server, and how long it waits between tries."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeproxy_ebpf.kubernetes.api_client import ApiClient
from kubeproxy_ebpf.kubernetes.errors import ApiError, BrokenStreamError, LoginFailedError, ServerUnreachableError
from kubeproxy_ebpf.kubernetes.login import Login
from kubeproxy_ebpf.kubernetes.retry import (
    CALM_SECONDS,
    LONGEST_DELAY_ANSWERED,
    LONGEST_DELAY_UNREACHABLE,
    LONGEST_RETRY_AFTER,
    RetryDelays,
)
from tests.api_server import SERVICES, ApiServer


def make_authority(folder: Path, name: str) -> None:
    """Make a certificate authority and one certificate of it, for the server's name and the client."""
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-keyout", f"{name}-ca.key", "-out", f"{name}-ca.crt", "-subj", f"/CN={name}")  # fmt: skip
    openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=kubernetes.test")  # fmt: skip
    (folder / "extensions").write_text("subjectAltName=DNS:kubernetes.test\n")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{name}-ca.crt", "-CAkey", f"{name}-ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", f"{name}.crt")  # fmt: skip


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder."""
    subprocess.run(("openssl", *arguments), cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two certificate authorities."""
    folder = tmp_path_factory.mktemp("pki")
    make_authority(folder, "ours")
    make_authority(folder, "theirs")
    return folder


@pytest.fixture
def server(pki: Path) -> Iterator[ApiServer]:
    """Return a server that wants to see a certificate of our authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ours-ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki / "ours.crt", pki / "ours.key")
    with ApiServer(tls=context) as server:
        yield server


def get(server: ApiServer, folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> bytes:
    """Ask a server for its Services."""

    async def ask() -> bytes:
        client = ApiClient(Login(server.kubeconfig(folder, cluster, **user), ()))
        try:
            async with client.get(SERVICES, {}) as response:
                return await response.read()
        finally:
            await client.close()

    return asyncio.run(ask())


def trusting(pki: Path, name: str = "ours") -> dict[str, Any]:
    """Return a cluster of an authority, under the name that its certificates have."""
    return {"certificate-authority": str(pki / f"{name}-ca.crt"), "tls-server-name": "kubernetes.test"}


def being(pki: Path, name: str = "ours") -> dict[str, Any]:
    """Return a user with a certificate of an authority."""
    return {"client-certificate": str(pki / f"{name}.crt"), "client-key": str(pki / f"{name}.key")}


def test_certificates_of_both_sides(server: ApiServer, pki: Path, tmp_path: Path) -> None:
    """The server's is checked under the name that the kubeconfig gives it, ours is shown."""
    assert b"ServiceList" in get(server, tmp_path, trusting(pki), being(pki))


def test_insecure_is_insecure(server: ApiServer, pki: Path, tmp_path: Path) -> None:
    """Whoever asks for it trusts anybody."""
    assert b"ServiceList" in get(server, tmp_path, {"insecure-skip-tls-verify": True}, being(pki))


@pytest.mark.parametrize("flaw", ["authority", "name", "client", "nobody"])
def test_who_is_not_trusted_gets_nothing(server: ApiServer, pki: Path, tmp_path: Path, flaw: str) -> None:
    """Another authority's server, a server of another name, and a client that the server does not know."""
    cluster = trusting(pki, "theirs" if flaw == "authority" else "ours")
    if flaw == "name":
        del cluster["tls-server-name"]
    user = {} if flaw == "nobody" else being(pki, "theirs" if flaw == "client" else "ours")
    with pytest.raises(ServerUnreachableError):
        get(server, tmp_path, cluster, user)
    assert not server.seen


def test_a_certificate_that_is_none_is_said(server: ApiServer, tmp_path: Path) -> None:
    """The error says where to look."""
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(LoginFailedError, match="mend them in the kubeconfig"):
        get(server, tmp_path, {"certificate-authority": "ca.crt"}, {})


def test_other_certificates_are_no_servers_fault(tmp_path: Path) -> None:
    """What is under way with the old ones breaks; the server that is asked stays the same."""

    async def watch(client: ApiClient, login: Login, server: ApiServer) -> None:
        async with client.get(SERVICES, {"watch": "true", "resourceVersion": str(server.version)}) as stream:
            server.kubeconfig(tmp_path, {"insecure-skip-tls-verify": True})
            login._renewed_at = 0.0
            async with client.get(SERVICES, {}) as response:
                assert await response.read()
            await stream.read()

    async def ask(server: ApiServer) -> None:
        login = Login(server.kubeconfig(tmp_path), (server.url, "http://192.0.2.1"))
        client = ApiClient(login)
        try:
            with pytest.raises(ServerUnreachableError):
                await watch(client, login, server)
            assert client.server == server.url
        finally:
            await client.close()

    with ApiServer() as server:
        asyncio.run(ask(server))


UNREACHABLE = ServerUnreachableError("https://a", ConnectionRefusedError("refused"))


@pytest.mark.parametrize(
    ("error", "longest"),
    [
        (UNREACHABLE, LONGEST_DELAY_UNREACHABLE),
        (ApiError(503, "no"), LONGEST_DELAY_ANSWERED),
        (BrokenStreamError("no"), LONGEST_DELAY_ANSWERED),
    ],
)
def test_delays_grow_within_bounds(error: Exception, longest: float) -> None:
    """The first is short, later ones are longer, none is longer than it may be, and no two agents have the same."""
    delays = RetryDelays()
    series = [delays.after(error, 0.0) for _ in range(20)]
    assert series[0] <= 0.1
    assert longest / 2 <= min(series[-5:]) <= max(series) <= longest
    assert len(set(series)) > 10


def test_delays_begin_anew() -> None:
    """After what went well for a while, and after another kind of failure."""
    delays = RetryDelays()
    for _ in range(20):
        delays.after(UNREACHABLE, 0.0)
    assert delays.after(UNREACHABLE, CALM_SECONDS) <= 0.1
    for _ in range(20):
        delays.after(UNREACHABLE, 0.0)
    assert delays.after(ApiError(403, "not yet"), 0.0) <= 0.1


def test_a_servers_wish_is_heeded() -> None:
    """Within bounds: it may be out of its mind."""
    assert RetryDelays().after(ApiError(429, "slow down", 7.0), 0.0) == 7.0
    assert RetryDelays().after(ApiError(429, "slow down", 1e9), 0.0) == LONGEST_RETRY_AFTER
