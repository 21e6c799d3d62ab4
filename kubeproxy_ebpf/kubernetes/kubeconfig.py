# SPDX-License-Identifier: Apache-2.0
"""A kubeconfig, or what every pod has, to :class:`~kubeproxy_ebpf.kubernetes.access.Access`.

Read here and not by the library ``kubernetes``, which takes a third of a second and 18 MB. What only that library
can do, exec plug-ins and auth-providers, it does in a process of its own (``plugin_login``).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from kubeproxy_ebpf import yaml_reader
from kubeproxy_ebpf.kubernetes.access import Access, Trust
from kubeproxy_ebpf.kubernetes.errors import KubeconfigError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LARGEST_FILE: Final = 1 << 20

Raw = Mapping[str, Any]


class Found(NamedTuple):
    """What was read, and from where."""

    access: Access
    files: tuple[Path, ...]
    """All files that have a part in it: if one of them changes, read again."""
    needs_plugin: bool = False
    """The user logs in by an exec plug-in or an auth-provider, which only the library can do."""


def read_kubeconfig(path: Path) -> Found:
    """Read the current context of a kubeconfig.

    Raises:
        KubeconfigError: it cannot be read, or lacks something.
    """
    return _Kubeconfig(path).read()


def read_service_account(folder: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ) -> Found:
    """Read what every pod has.

    Raises:
        KubeconfigError: this is no pod, or it has no service account.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    token, authorities = folder / "token", folder / "ca.crt"
    trust = Trust(authorities=_text(authorities))
    access = Access(servers=(f"https://{_bracketed(host)}:{port}",), trust=trust, token=_text(token).strip())
    return Found(access, (token, authorities))


class _Kubeconfig:
    """One kubeconfig, as it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = [path]

    def read(self) -> Found:
        document = self._document()
        name = document.get("current-context")
        context = self._named(document, "contexts", "context", name or "")
        cluster = self._named(document, "clusters", "cluster", context.get("cluster", ""))
        user = self._named(document, "users", "user", context["user"]) if context.get("user") else {}
        server = self._string(cluster, "server")
        if not server:
            raise KubeconfigError(self._path, "its cluster has no server; write its URL")
        access = Access(
            servers=(server.rstrip("/"),),
            trust=self._trust(cluster, user),
            token=self._token(user),
            username=self._string(user, "username"),
            password=self._string(user, "password"),
        )
        return Found(access, tuple(self._files), bool(user.get("exec") or user.get("auth-provider")))

    def _document(self) -> Raw:
        try:
            documents = list(yaml_reader.read_documents(_text(self._path).encode()))
        except yaml_reader.YamlError as error:
            raise KubeconfigError(self._path, f"it is not YAML ({error}); mend it") from error
        if len(documents) != 1 or not isinstance(documents[0], dict):
            raise KubeconfigError(self._path, "it is no mapping of clusters, users and contexts; write one")
        return documents[0]

    def _named(self, document: Raw, group: str, kind: str, name: object) -> Raw:
        """Return the one of some cluster, user or context entries that has a name."""
        entries = document.get(group)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(kind), dict):
                found: Raw = entry[kind]
                return found
        raise KubeconfigError(self._path, f"{group} has no entry named {name!r}; add it, or name another one")

    def _trust(self, cluster: Raw, user: Raw) -> Trust:
        return Trust(
            authorities=self._file_or_data(cluster, "certificate-authority"),
            is_insecure=self._boolean(cluster, "insecure-skip-tls-verify"),
            server_name=self._string(cluster, "tls-server-name"),
            certificate=self._file_or_data(user, "client-certificate"),
            private_key=self._file_or_data(user, "client-key"),
            proxy_url=self._string(cluster, "proxy-url"),
        )

    def _token(self, user: Raw) -> str:
        """Return the token. One in a file goes before one written out, as for kubectl."""
        file = self._string(user, "tokenFile")
        return self._file(file).strip() if file else self._string(user, "token").strip()

    def _file_or_data(self, raw: Raw, key: str) -> str:
        """Return what stands in ``key-data``, else in the file ``key``."""
        data = self._string(raw, f"{key}-data")
        if data:
            try:
                return base64.b64decode("".join(data.split()), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise KubeconfigError(self._path, f"{key}-data is not base64 of a PEM text; mend it") from error
        file = self._string(raw, key)
        return self._file(file) if file else ""

    def _file(self, name: str) -> str:
        path = self._path.parent / name  # an absolute one stays as it is
        self._files.append(path)
        return _text(path)

    def _boolean(self, raw: Raw, key: str) -> bool:
        value = raw.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise KubeconfigError(self._path, f"{key} is not a boolean; write true or false, without quotes")
        return value

    def _string(self, raw: Raw, key: str) -> str:
        value = raw.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise KubeconfigError(self._path, f"{key} is not a text; write one, in quotes")
        return value


def _text(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            text = opened.read(_LARGEST_FILE + 1)
        if len(text) > _LARGEST_FILE:
            raise KubeconfigError(path, f"it is larger than {_LARGEST_FILE} bytes; name another file")
        return text.decode()
    except OSError as error:
        what = f"it cannot be read ({error.strerror}); name a file that exists and may be read"
        raise KubeconfigError(path, what) from error
    except UnicodeDecodeError as error:
        raise KubeconfigError(path, "it is not text; name another file") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
