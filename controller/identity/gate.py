"""Who comes in at the broker from other machines, and who is put out: the store's word, carried to the broker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from agent.contract import topics
from controller import reads, records
from controller.background import Background
from controller.broker.port import Admission, BoundTopic, Broker, ClientRight
from controller.identity.authority import Authority
from controller.store import Store

log = logging.getLogger("lepta.gate")

# What the broker may hold of a device: its desired state, and whatever it chose to leave there itself.
_RETAINED = ("desired", *topics.AGENT_UP)
_PAUSE_S = 0.5
_MOST_TRIES = 1000


class Gate:
    """Owned by the event loop."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        broker: Broker,
        clear: Callable[[str], bool],
        *,
        expel_s: float,
        wall: Callable[[], float],
    ) -> None:
        """`clear(topic)` takes away what is retained there, False while that cannot be sent; `expel_s`: how long
        somebody who was shut out is put out again. `wall` in seconds since 1970."""
        self._store = store
        self._authority = authority
        self._broker = broker
        self._clear_topic = clear
        self._expel_s = expel_s
        self._wall = wall
        self._turn = asyncio.Lock()
        self._background = Background()
        self._out: set[str] = set()

    @property
    def knows_everybody(self) -> bool:
        """The broker tells devices apart; elsewhere they share a password, and none of them can be shut out."""
        return bool(self._broker.agents_port)

    async def refresh(self) -> None:
        """Tell the broker who may come in, as the store has it now. Before it starts too."""
        # One after the other: an older answer of the store must not reach the broker last.
        async with self._turn:
            clients = await self._store.read(reads.every(records.Client))
            now = self._wall()
            serials = await self._store.read(reads.revoked_serials(now))
            rights = tuple(ClientRight(c.name, c.password, c.predictions, c.publishes) for c in clients)
            bound = [BoundTopic(b.spec.topic, b.devices) for b in await self._store.read(reads.every(records.Binding))]
            self._broker.admit(Admission(rights, self._authority.revocations(serials, now), tuple(bound)))

    async def shut_out(self, name: str) -> None:
        """Somebody whose rights the store has taken away: refuse, put out, clear what is retained. Returns when that
        was done once; it goes on for a while, because he may have come back before the broker knew."""
        self._out.add(name)
        await self.refresh()
        await self._put_out(name)
        self._background.start(self._keep_out(name), lambda why: log.warning("%s is not shut out: %s", name, why))

    def let_in(self, name: str) -> None:
        """The name belongs to somebody who may come in."""
        self._out.discard(name)

    async def clear_revoked(self) -> None:
        """What is retained of revoked devices: the controller may have ended between the revocation and that."""
        for device in await self._store.read(reads.every(records.Device, state="revoked")):
            for _ in range(_MOST_TRIES):
                if self._clear(device.name, await self._models()):
                    break
                await asyncio.sleep(_PAUSE_S)

    async def _keep_out(self, name: str) -> None:
        until = time.monotonic() + self._expel_s
        for _ in range(_MOST_TRIES):
            await asyncio.sleep(_PAUSE_S)
            if name not in self._out:
                return
            cleared = await self._put_out(name)
            if cleared and time.monotonic() >= until:
                self._out.discard(name)
                return

    async def _put_out(self, name: str) -> bool:
        await self._broker.expel(name)
        models = await self._models()
        # Last: putting a device out makes the broker publish its will, which is retained.
        return name in self._out and self._clear(name, models)

    def _clear(self, name: str, models: list[str]) -> bool:
        own = [topics.agent(name, kind) for kind in _RETAINED]
        sent = [self._clear_topic(topic) for topic in (*own, *(topics.predictions(model, name) for model in models))]
        return all(sent)

    async def _models(self) -> list[str]:
        return [model.name for model in await self._store.read(reads.every(records.Model))]
