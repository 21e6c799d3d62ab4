# SPDX-License-Identifier: Apache-2.0
"""A certificate authority, users with tokens and client certificates, and kubeconfigs for them."""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.kubernetes.errors import ControlPlaneError

_DAYS = "30"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the API server knows."""

    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("admin", ("system:masters",))
NODE_PROXIER = User("system:kube-proxy")
"""Who Kubernetes itself binds to the cluster role ``system:node-proxier``, and to nothing else."""
USERS = (ADMIN, NODE_PROXIER)


class Credentials:
    """All of a control plane's, in a folder of their own."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        """Make them; ``names`` are the addresses and host names that the API server is reached by."""
        self._folder = folder
        folder.mkdir(mode=0o700)
        self.authority = folder / "authority.crt"
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self._make_certificate("authority", "/CN=authority", ("-addext", "keyUsage=keyCertSign"))
        alternatives = ",".join(f"{'IP' if name[-1].isdigit() or ':' in name else 'DNS'}:{name}" for name in names)
        self.server = self._sign("server", "/CN=kube-apiserver", "-addext", f"subjectAltName={alternatives}")
        self.accounts = self._sign("accounts", "/CN=service-accounts")
        self.tokens = folder / "tokens.csv"
        self.tokens.write_text("".join(f"{self._tokens[user]},{_as_csv(user)}\n" for user in USERS))

    def token(self, user: User) -> str:
        """Return a user's bearer token."""
        return self._tokens[user]

    def know(self, user: User, token: str) -> None:
        """Take over a token that the API server has given somebody, such as a service account."""
        self._tokens[user] = token

    def certificate(self, user: User) -> tuple[Path, Path]:
        """Return a new client certificate and its key."""
        subject = "".join(f"/O={group}" for group in user.groups) + f"/CN={user.name}"
        name = f"client-{secrets.token_hex(4)}"
        return self._sign(name, subject, "-addext", "extendedKeyUsage=clientAuth")

    def kubeconfig(self, user: User, server: str, *, with_certificate: bool = False) -> Path:
        """Write a kubeconfig for a user, with a token or a client certificate."""
        if with_certificate:
            certificate, key = self.certificate(user)
            access = {"client-certificate": str(certificate), "client-key": str(key)}
        else:
            access = {"token": self.token(user)}
        path = self._folder / f"kubeconfig-{secrets.token_hex(4)}"
        path.write_text(json.dumps(_kubeconfig(server, self.authority, access)))
        path.chmod(0o600)
        return path

    def _sign(self, name: str, subject: str, *arguments: str) -> tuple[Path, Path]:
        signer = ("-CA", str(self.authority), "-CAkey", str(self.authority.with_suffix(".key")))
        not_an_authority = ("-addext", "basicConstraints=critical,CA:FALSE")
        return self._make_certificate(name, subject, (*signer, *not_an_authority, *arguments))

    def _make_certificate(self, name: str, subject: str, arguments: tuple[str, ...]) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        command = ("openssl", "req", "-x509", *curve, "-nodes", "-days", _DAYS, "-subj", subject)
        files = ("-out", str(certificate), "-keyout", str(key))
        result = subprocess.run((*command, *files, *arguments), capture_output=True, text=True, check=False)
        if result.returncode:
            msg = f"openssl does not make {certificate}: {result.stderr.strip()}"
            raise ControlPlaneError(msg)
        return certificate, key


def _as_csv(user: User) -> str:
    groups = ",".join(user.groups)
    return f'"{user.name}","{user.name}"' + (f',"{groups}"' if groups else "")


def _kubeconfig(server: str, authority: Path, access: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "user", "user": access}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
        "current-context": "context",
    }
