"""Work beside the loop: it holds files or waits for others, and its end comes back as an event. No failure is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from controller.errors import LeptaError

log = logging.getLogger("lepta")

Failed = Callable[[str], None]


class Background:
    """Owned by the event loop."""

    def __init__(self) -> None:
        # The event loop itself keeps only weak references.
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None], failed: Failed) -> None:
        """Run `work`; if it raises, `failed` is told why in words for people."""
        task = asyncio.ensure_future(self._guarded(work, failed))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    @staticmethod
    async def _guarded(work: Coroutine[None, None, None], failed: Failed) -> None:
        try:
            await work
        except (LeptaError, OSError) as error:
            failed(str(error))
        except Exception as error:
            # A bug of ours: its traceback is the report, and whoever waits is told.
            log.exception("background work broke")
            failed(f"something broke here: {error}")
