# SPDX-License-Identifier: Apache-2.0
"""How long to wait before asking a server again."""

from __future__ import annotations

import random
from typing import Final

from kubeproxy_ebpf.kubernetes.errors import ApiError, ServerUnreachableError

FIRST_DELAY: Final = 0.1
LONGEST_DELAY_UNREACHABLE: Final = 1.0
"""Seconds. Knocking at a closed door costs nobody anything, and a server that is back is noticed within a second."""
LONGEST_DELAY_ANSWERED: Final = 5.0
"""Seconds. A server that answers with errors has work with each of them."""
LONGEST_RETRY_AFTER: Final = 60.0
"""Seconds a server's own wish is heeded."""
CALM_SECONDS: Final = 5.0
"""What has worked for this long begins anew."""


class RetryDelays:
    """Delays that double with each failure of a kind, within bounds, and differ from agent to agent."""

    def __init__(self) -> None:
        """Start without failures."""
        self._was_unreachable = False
        self._delay = FIRST_DELAY

    def after(self, error: Exception, lasted: float) -> float:
        """Return how many seconds to wait after a failure; what failed had gone on for ``lasted`` seconds."""
        unreachable = isinstance(error, ServerUnreachableError)
        if lasted >= CALM_SECONDS or unreachable != self._was_unreachable:
            self._delay = FIRST_DELAY
        self._was_unreachable = unreachable
        longest = LONGEST_DELAY_UNREACHABLE if unreachable else LONGEST_DELAY_ANSWERED
        delay = min(self._delay, longest)
        self._delay = min(self._delay * 2, longest)
        wanted = min(error.retry_after, LONGEST_RETRY_AFTER) if isinstance(error, ApiError) else 0.0
        return max(wanted, delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads agents, hides nothing
