# SPDX-License-Identifier: Apache-2.0
"""File descriptors for what is none: signals, and the end of a grace period. For an event loop to wait on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GATHER_SECONDS = 0.05
"""How long a grace period waits for company: one has its price, and under churn the next has more to free."""


class StopRequestedError(Exception):
    """It is time to stop, in the middle of something that may be left half done."""


class StopSignals:
    """Turns SIGTERM and SIGINT into a readable descriptor, for as long as it is entered. Main thread only."""

    def __init__(self) -> None:
        """Make the pipe; the handlers come with ``with``."""
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[signal.Signals, object] = {}
        self.received: signal.Signals | None = None
        self._raises = False

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when it is time to stop."""
        return self._reader

    @contextmanager
    def cutting_short(self) -> Iterator[None]:
        """Do something that takes long: a signal raises StopRequestedError in it, and so does one that came before."""
        self._raises = True
        try:
            if self.received is not None:
                raise StopRequestedError
            yield
        finally:
            self._raises = False

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._receive)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal() returned
        os.close(self._reader)
        os.close(self._writer)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self._raises:
            raise StopRequestedError


class GracePeriodThread:
    """Waits for readers in a thread of its own, as that blocks for milliseconds in the kernel.

    It touches nothing but the function that it was given.
    """

    def __init__(self, wait_for_readers: Callable[[], None]) -> None:
        """Start the thread, asleep."""
        self._wait_for_readers = wait_for_readers
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self._wanted = threading.Semaphore(0)
        self._closing = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="grace-period", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a grace period has passed."""
        return self._reader

    def start(self) -> None:
        """Begin a grace period. The one before must have ended."""
        self._wanted.release()

    def finish(self) -> None:
        """Take note that the grace period has passed. Raises what the wait raised."""
        os.read(self._reader, 1)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread; blocks no longer than a grace period."""
        self._closing.set()
        self._wanted.release()
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            if self._closing.wait(GATHER_SECONDS):
                return
            try:
                self._wait_for_readers()
            except BaseException as error:  # noqa: BLE001 - raised again where it can be handled, by finish()
                self._error = error
            os.write(self._writer, b".")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()
