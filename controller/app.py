"""Wiring: the parts of a controller put together, started and stopped in their order, and the web app over them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI

from agent.contract.messages import ControllerStatus, Stamper
from controller import broker, keys, serving, wiring
from controller.api import add_routes
from controller.bus import Bus
from controller.catalog import Catalog
from controller.errors import LeptaError
from controller.identity.api_keys import ApiKeys
from controller.identity.authority import CA_CERTIFICATE, ServerFiles
from controller.identity.gate import Gate
from controller.optimizations import Optimizations
from controller.parts import Controller
from controller.settings import Settings
from controller.store import Store
from firmware_profiles.profile import builtin

log = logging.getLogger("lepta")


class Assembly:
    """A controller's parts, made and not yet started. Raises LeptaError if the data folder cannot be used."""

    def __init__(self, settings: Settings, url: str, optimizer: Sequence[str] | None = None) -> None:
        """`url`: where tools on this machine will reach the API. `optimizer` starts one; None: Lepta's own."""
        secret = keys.load_or_create(settings.data, time.time())
        self.server = serving.files(settings, secret.authority, time.time())
        stamper = Stamper(wiring.new_id("boot"))
        limits = settings.limits
        self.broker = broker.create(
            settings, secret.broker_password, self.server, secret.authority.folder / CA_CERTIFICATE
        )
        self.bus = Bus(
            self.broker,
            limits,
            # Capital: no device's and no client's name begins with one.
            client_id=f"Lepta-{stamper.boot}",
            status=lambda online: stamper.encode(ControllerStatus(online=online)),
            draw=random.random,
        )
        self.optimizations = Optimizations(
            settings.data / "logs", limits, self._optimizer_said, optimizer, self._optimizer_begins
        )
        self.store = Store(settings.data / "lepta.db", limits)
        try:
            self.catalog = Catalog(settings.data / "files", self.store, passing_bytes=settings.limits.passing_bytes)
            self.controller = self._build(settings, url, secret, stamper)
        except BaseException:
            self.store.close()
            raise

    def _build(self, settings: Settings, url: str, secret: keys.Keys, stamper: Stamper) -> Controller:
        profiles = builtin()
        ground = wiring.Ground(
            settings=settings,
            keys=secret,
            store=self.store,
            catalog=self.catalog,
            bus=self.bus,
            stamper=stamper,
            optimizer=self.optimizations,
            profiles=profiles,
        )
        built = wiring.build(ground)
        return Controller(
            settings=settings,
            url=url,
            public_url=serving.public_url(settings, url),
            server=self.server,
            boot_id=stamper.boot,
            keys=secret,
            api_keys=ApiKeys(self.store, settings.limits, secret.api_token),
            store=self.store,
            catalog=self.catalog,
            broker=self.broker,
            bus=self.bus,
            fleet=built.fleet,
            signer=built.signer,
            examples=built.examples,
            on_demand=built.on_demand,
            gate=Gate(
                self.store,
                secret.authority,
                self.broker,
                lambda topic: self.bus.publish(topic, b"", qos=1, retain=True),
                expel_s=settings.limits.expel_s,
                wall=time.time,
            ),
            profiles=profiles,
            pictures=asyncio.Semaphore(settings.limits.pictures_at_once),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        """Everything runs inside; afterwards nothing does, no child process either."""
        fleet, bus = self.controller.fleet, self.bus
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.store.close)
            await stack.enter_async_context(self._keys_in_use())
            stack.push_async_callback(self.broker.stop)
            await self.controller.gate.refresh()
            await self.broker.start()
            stack.push_async_callback(self.optimizations.stop)
            self.optimizations.start()
            stack.push_async_callback(bus.stop)
            # The fleet knows its devices before the first of them speaks; it has its last word before the bus goes.
            await fleet.start()
            stack.push_async_callback(fleet.stop)
            stack.push_async_callback(self.controller.on_demand.stop)
            bus.listen(fleet.deliver, on_lost=fleet.broker_lost)
            await bus.start()
            await stack.enter_async_context(_background(self._sweep()))
            if self.server is not None:
                await stack.enter_async_context(_background(self._renew(self.server)))
            await stack.enter_async_context(_background(self.controller.gate.clear_revoked()))
            yield self.controller

    @contextlib.asynccontextmanager
    async def _keys_in_use(self) -> AsyncIterator[None]:
        """API keys are known, and now and then it is written down when they were used; at the end once more."""
        api_keys, limits = self.controller.api_keys, self.controller.settings.limits

        async def note() -> None:
            try:
                await api_keys.note()
            except LeptaError as error:
                log.warning("the last use of API keys could not be written down: %s", error)

        await api_keys.start(time.time())
        async with _background(_every(limits.last_used_s, note)):
            yield
        await note()

    async def _renew(self, server: ServerFiles) -> None:
        """The server's certificate, in time: connections that there are stay, new ones see the new certificate."""
        controller = self.controller
        while True:
            await asyncio.sleep(controller.settings.limits.certificate_check_s)
            try:
                if serving.renewed(controller.settings, controller.keys.authority, server, time.time()):
                    log.info("the server's certificate was signed anew")
                    await controller.gate.refresh()
                    for tell in controller.on_certificate:
                        tell()
            except (LeptaError, OSError) as error:
                log.warning("the server's certificate could not be renewed: %s", error)

    async def _optimizer_begins(self, request_id: str) -> None:
        fleet = self.controller.fleet
        if not self.controller.examples.knows(request_id):
            await fleet.do(lambda tick: fleet.runs.begun(tick, request_id))

    def _optimizer_said(self, request_id: str, event: dict[str, Any]) -> None:
        if self.controller.examples.knows(request_id):
            self.controller.examples.event(request_id, event)
        else:
            self.controller.fleet.run_event(request_id, event)

    async def _sweep(self) -> None:
        """Now and then delete files that nobody needs."""
        limits = self.controller.settings.limits
        while True:
            await asyncio.sleep(limits.sweep_s)
            try:
                await self.catalog.sweep(time.time() - limits.blob_keep_s)
            except (LeptaError, OSError) as error:
                log.warning("unused files could not be deleted: %s", error)


def create_app(controller: Controller) -> FastAPI:
    """The web app over a controller that somebody else starts and stops."""
    # Its pages of documentation would load scripts from elsewhere; the description itself is a route of ours.
    app = FastAPI(title="Lepta", docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, controller)
    return app


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await act()


@contextlib.asynccontextmanager
async def _background(work: Any) -> AsyncIterator[None]:
    future = asyncio.ensure_future(work)
    try:
        yield
    finally:
        future.cancel()
        await asyncio.gather(future, return_exceptions=True)
