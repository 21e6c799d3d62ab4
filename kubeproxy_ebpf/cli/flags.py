# SPDX-License-Identifier: Apache-2.0
"""The configuration's keys to flags of a verb, so that no flag is written twice."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kubeproxy_ebpf.config import Loaded, load_configuration
from kubeproxy_ebpf.config.keys import Key

Load = Callable[[], Loaded]
"""Reads the configuration that the command line asks for. Raises ConfigurationError."""

_OneText: Any = str | None
_Texts: Any = list[str] | None
_Switch: Any = bool | None
_CONFIG_HELP = "Configuration file, or a KubeProxyConfiguration. Flags go before it."


def configured(keys: Sequence[Key[Any]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb ``--config`` and a flag for each key; it gets ``load`` in their place."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        def command(**arguments: object) -> None:
            file = arguments.pop("config")
            flags = {key.parameter: arguments.pop(key.parameter) for key in keys}

            def load() -> Loaded:
                return load_configuration(file=file if isinstance(file, Path) else None, flags=flags, flag_keys=keys)

            verb(load=load, **arguments)

        own = inspect.signature(verb, eval_str=True).parameters.values()
        parameters = [*(one for one in own if one.name != "load"), _config_parameter(), *map(_parameter, keys)]
        command.__name__ = verb.__name__
        command.__doc__ = verb.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def _config_parameter() -> inspect.Parameter:
    annotation = Annotated[Path | None, typer.Option("--config", metavar="FILE", help=_CONFIG_HELP)]
    return inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parameter(key: Key[Any]) -> inspect.Parameter:
    """Return a key's flag. Texts are checked by the key, which says more than a conversion here could."""
    declaration, of_type = key.flag, _OneText
    if key.kind.is_switch:
        declaration, of_type = f"{key.flag}/--no-{key.flag[2:]}", _Switch
    elif key.kind.is_list or key.kind.is_mapping:
        of_type = _Texts
    default = key.default_text.replace("`", "")
    option = typer.Option(
        declaration,
        metavar=key.kind.metavar or None,
        help=f"{key.meaning.replace('`', '')} Default: {default}.",
        show_default=False,
    )
    annotation = Annotated[of_type, option]  # type: ignore[valid-type] # made at run time, for typer to read
    return inspect.Parameter(key.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
