# SPDX-License-Identifier: Apache-2.0
"""What it takes to send a request: servers, whom to trust, and who one is. Read once, then compared."""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass, field, replace

from kubeproxy_ebpf.kubernetes.errors import LoginFailedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The TLS half: what two requests must have in common to share a connection."""

    authorities: str = ""
    """Certificates in PEM; empty: those of the system."""
    is_insecure: bool = False
    server_name: str = ""
    """To check the server's certificate against, in place of its address."""
    certificate: str = field(default="", repr=False)
    """The client's own, in PEM."""
    private_key: str = field(default="", repr=False)
    proxy_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """All of it."""

    servers: tuple[str, ...]
    """URLs; the first that answers is used."""
    trust: Trust = Trust()
    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    expires: float | None = None
    """Seconds since the epoch."""

    def headers(self) -> dict[str, str]:
        """Return what each request carries."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        if self.username:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    def at(self, servers: tuple[str, ...]) -> Access:
        """Return the same for other servers; none: for its own."""
        return replace(self, servers=servers) if servers else self


class _TlsContext(ssl.SSLContext):
    """A context that may check another name than the one that was connected to."""

    server_name: str = ""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the signature is the library's
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        name = self.server_name or server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, name, session)


def tls_context(trust: Trust) -> ssl.SSLContext:
    """Make the TLS context.

    Raises:
        LoginFailedError: a certificate or key cannot be read.
    """
    context = _TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = trust.server_name
    if trust.is_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if trust.authorities:
            context.load_verify_locations(cadata=trust.authorities)
        elif not trust.is_insecure:
            context.load_default_certs()
        if trust.certificate:
            _load_own_certificate(context, trust)
    except (ssl.SSLError, ValueError) as error:
        msg = f"certificates cannot be used ({error}); mend them in the kubeconfig or in the files that it names"
        raise LoginFailedError(msg) from error
    return context


def _load_own_certificate(context: ssl.SSLContext, trust: Trust) -> None:
    """Load certificate and key, which OpenSSL reads from files only: from one that is in memory and nowhere else."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(f"{trust.certificate}\n{trust.private_key}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
