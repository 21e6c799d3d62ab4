# SPDX-License-Identifier: Apache-2.0
"""Runs a kubeconfig's exec plug-in or auth-provider: the program that the agent starts for a moment.

``python -m kubeproxy_ebpf.kubernetes.plugin_login KUBECONFIG`` prints one JSON object. The library ``kubernetes``
does the work; in the agent it would cost a fifth of all its memory for ever.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from kubeproxy_ebpf import yaml_reader
from kubeproxy_ebpf.kubernetes.access import Access
from kubeproxy_ebpf.kubernetes.errors import LoginFailedError

_LONGEST_SECONDS: Final = 60.0
_LONGEST_MESSAGE: Final = 1000


async def log_in(kubeconfig: Path, access: Access) -> Access:
    """Return an access with what the plug-in gives.

    Raises:
        LoginFailedError: it fails, or takes longer than a minute.
    """
    command = (sys.executable, "-m", __name__, str(kubeconfig))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a process group, so that the plug-in does not outlive the process that started it
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), _LONGEST_SECONDS)
    except TimeoutError:
        msg = f"the plug-in of {kubeconfig} has not ended after {_LONGEST_SECONDS:g} s; mend or replace it"
        raise LoginFailedError(msg) from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        said = errors.decode(errors="replace").strip()[-_LONGEST_MESSAGE:]
        msg = f"the plug-in of {kubeconfig} failed; run it by hand: {said}"
        raise LoginFailedError(msg)
    given: dict[str, Any] = orjson.loads(output)
    trust = access.trust
    if given["certificate"]:
        trust = replace(trust, certificate=given["certificate"], private_key=given["private_key"])
    return replace(access, trust=trust, token=given["token"], expires=given["expires"])


def main(kubeconfig: str) -> None:
    """Print what the library finds out."""
    from kubernetes.client import Configuration  # noqa: PLC0415 - only in a process of its own
    from kubernetes.config import ConfigException  # noqa: PLC0415 - as above
    from kubernetes.config.kube_config import KubeConfigLoader  # noqa: PLC0415 - as above

    path = Path(kubeconfig)
    document = next(yaml_reader.read_documents(path.read_bytes()))
    configuration = Configuration()
    try:
        # The library is untyped.
        loader = KubeConfigLoader(  # type: ignore[no-untyped-call]
            config_dict=document, config_base_path=str(path.parent.absolute())
        )
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        sys.exit(str(error))
    _, _, token = str(getattr(loader, "token", "")).partition("Bearer ")
    certificate, private_key = (_content(configuration.cert_file), _content(configuration.key_file))
    if not token and not certificate:
        sys.exit(1)  # the library has logged why
    expires: datetime | None = getattr(loader, "expiry", None)
    result = {
        "token": token,
        "certificate": certificate,
        "private_key": private_key,
        "expires": expires.timestamp() if expires else None,
    }
    sys.stdout.buffer.write(orjson.dumps(result))


def _content(file: str | None) -> str:
    return Path(file).read_text() if file else ""


if __name__ == "__main__":
    main(sys.argv[1])
