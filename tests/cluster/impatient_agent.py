# SPDX-License-Identifier: Apache-2.0
"""The agent, which soon gives up a silent server: `impatient_agent.py SECONDS run ...`."""

from __future__ import annotations

import sys
from functools import partial

from kubeproxy_ebpf.cli import run
from kubeproxy_ebpf.cli.main import main
from kubeproxy_ebpf.cli.serve import serve
from kubeproxy_ebpf.kubernetes import operator, source
from kubeproxy_ebpf.kubernetes.api_client import ApiClient

if __name__ == "__main__":
    seconds = float(sys.argv.pop(1))
    vars(source)["ApiClient"] = partial(ApiClient, silence_seconds=seconds)
    vars(operator)["SILENCE_SECONDS"] = seconds
    # In this program: one that begins anew would be as patient as ever.
    vars(run)["launch"] = lambda configuration, notices: sys.exit(serve(configuration, notices))
    main()
