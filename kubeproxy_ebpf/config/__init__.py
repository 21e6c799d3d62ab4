# SPDX-License-Identifier: Apache-2.0
"""The configuration: flags, file and defaults to one checked value.

``keys`` says what there is; ``values`` reads each kind of value; ``load`` puts flags, file and defaults in order;
``kube_proxy`` accepts a KubeProxyConfiguration in the file's place; ``reference`` renders the table of keys.
"""

from kubeproxy_ebpf.config.configuration import Configuration, LogFormat, LogLevel
from kubeproxy_ebpf.config.errors import ConfigurationError
from kubeproxy_ebpf.config.load import Loaded, Notice, load_configuration

__all__ = ["Configuration", "ConfigurationError", "Loaded", "LogFormat", "LogLevel", "Notice", "load_configuration"]
