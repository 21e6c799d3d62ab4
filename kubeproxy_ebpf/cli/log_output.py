# SPDX-License-Identifier: Apache-2.0
"""Log events to lines on standard error: for people, or one JSON object each. Other libraries' loggers join in."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import orjson
import structlog
from structlog.typing import Processor

from kubeproxy_ebpf.config import LogFormat, LogLevel, Notice

_LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


def configure_logging(level: LogLevel, log_format: LogFormat) -> None:
    """Decide which events are logged and how they look, for the whole process."""
    as_json = log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _json_renderers() if as_json else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    _join_others(shared, renderers)


def log_warnings_only() -> None:
    """Decide what is logged by verbs whose result is data or a sentence on standard output."""
    configure_logging(LogLevel.WARNING, LogFormat.AUTO)


def log_notices(notices: Iterable[Notice]) -> None:
    """Log what is to be said about the configuration."""
    log = structlog.get_logger("kubeproxy_ebpf.config")
    for notice in notices:
        (log.warning if notice.is_warning else log.info)(notice.event, **notice.fields)


def _json_renderers() -> list[Processor]:
    def to_json(event: object, **_: object) -> str:
        return orjson.dumps(event, default=str).decode()

    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=to_json)]


def _join_others(shared: Sequence[Processor], renderers: Sequence[Processor]) -> None:
    """Give the standard library's root logger the same look; other people's chatter begins at warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(shared),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
