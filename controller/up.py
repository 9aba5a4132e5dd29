"""The process of `lepta up`: one data folder, one controller, stopped by a signal, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvicorn

from agent.contract import heap
from controller import serving
from controller.api.access import Needs
from controller.api.short import ShortWay
from controller.app import Assembly, create_app
from controller.door import door
from controller.errors import Conflict, Internal
from controller.keys import API_TOKEN
from controller.parts import Controller
from controller.settings import Settings

log = logging.getLogger("lepta")

WRITTEN = "controller.json"
_SWITCH_S = 0.0002
_HEAP_BYTES = 64 << 20
# Whole collections much rarer than by default: requests wait for them. Young objects in larger lots, but not so large
# that requests would wait for a lot.
_COLLECT = (2_000, 10, 500)
_ELSEWHERE = "choose another folder with --data"


def run(settings: Settings) -> int:
    """Be a controller until SIGINT or SIGTERM; returns 0. Raises LeptaError if it cannot start."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    # What this process and its children write is for its user alone.
    os.umask(0o077)
    # The database's thread computes too: by Python's default, a request would wait 5 ms for each of its turns.
    sys.setswitchinterval(_SWITCH_S)
    heap.keep(_HEAP_BYTES)
    serving.check(settings)
    with _data_folder(settings.data), serving.listening(settings) as listener:
        # Not uvloop: it takes in one connection per turn, so that in an overload new callers wait for its end.
        asyncio.run(_run(settings, listener))
    return 0


async def _run(settings: Settings, listener: socket.socket) -> None:
    stop = _Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    assembly = Assembly(settings, serving.url(settings, listener.getsockname()[1]))
    with contextlib.suppress(asyncio.CancelledError):
        async with assembly.running() as controller:
            stop.started = True
            await _serve(controller, listener, stop.asked)


class _Stop:
    """What a signal does: it ends a start that is under way, and asks a controller that runs to stop."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.started = False
        self._starting = asyncio.current_task()

    def __call__(self) -> None:
        if not self.started and not self.asked.is_set() and self._starting is not None:
            self._starting.cancel()
        self.asked.set()


async def _serve(controller: Controller, listener: socket.socket, asked: asyncio.Event) -> None:
    """Serve the API until somebody asks to stop."""
    server = _Server(controller, lambda: _ready(controller))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stop = asyncio.create_task(asked.wait())
    await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    log.info("stopping")
    (controller.settings.data / WRITTEN).unlink(missing_ok=True)
    server.should_exit = True
    await serving


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would end the process by the signal that stopped it."""

    def __init__(self, controller: Controller, on_ready: Callable[[], None]) -> None:
        limits, tls, app = controller.settings.limits, _tls(controller), create_app(controller)
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=door(ShortWay(controller, app.state.access, Needs("infer")), controller.fleet.inference.turn_away),
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                ssl_context_factory=(lambda _config, _default: tls) if tls else None,
                timeout_keep_alive=limits.keep_alive_s,
                timeout_graceful_shutdown=round(limits.shutdown_s),
            )
        )
        self._on_ready = on_ready
        fleet = controller.fleet
        self._watchers = (fleet.runs.watchers, fleet.jobs.watchers, fleet.drains.watchers)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Who follows a run or job would otherwise hold us for as long as an answer may take.
        for watchers in self._watchers:
            watchers.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _tls(controller: Controller) -> ssl.SSLContext | None:
    server = controller.server
    if server is None:
        return None
    context = serving.tls(server)
    controller.on_certificate.append(lambda: context.load_cert_chain(server.certificate, server.key))
    return context


def _ready(controller: Controller) -> None:
    """Tell the tools of this machine where we are."""
    # What the imports made stays for good: no collection need walk it again, while requests wait.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    broker = controller.broker
    known: dict[str, object] = {
        "url": controller.url,
        "pid": os.getpid(),
        "broker": {"kind": broker.kind, "host": broker.host, "port": broker.port},
    }
    ca = serving.ca_file(controller.settings, controller.keys.authority)
    if ca is not None:
        known["ca"] = str(ca)
    path = controller.settings.data / WRITTEN
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(known))
    temporary.replace(path)
    log.info("ready at %s, %s broker at %s:%d", controller.url, broker.kind, broker.host, broker.port)
    _say_first_key(controller)
    if controller.settings.lan:
        _say_where(controller)


def _say_first_key(controller: Controller) -> None:
    """Once, and only to somebody who sits here: what is not a terminal may be a log that others read."""
    path = controller.settings.data / API_TOKEN
    if controller.keys.first and sys.stdout.isatty():
        print(f"the first API key, which may do everything: {controller.keys.api_token}")
        print(f"it is told once, and kept for tools on this machine in {path}", flush=True)
    elif controller.keys.first:
        log.info("the first API key, which may do everything, is in %s", path)


def _say_where(controller: Controller) -> None:
    """What the one who sits here needs to know to bring in other machines."""
    settings = controller.settings
    print(f"serving {controller.public_url}", flush=True)
    print(
        f"  devices reach MQTT at port {settings.agents_port}, clients at port {settings.clients_port}, both with TLS"
    )
    print(f"  SHA-256 of the CA: {controller.keys.authority.fingerprint}")
    print("next, in another terminal, for each device that is to join:")
    print("  lepta device add", flush=True)


@contextlib.contextmanager
def _data_folder(folder: Path) -> Iterator[None]:
    """Make sure that it is there and ours alone; the lock goes with the process, however that ends."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Internal(f"the data folder {folder} cannot be used: {error.strerror}", _ELSEWHERE) from error
    try:
        _lock(lock, folder)
        # Left by a controller that was killed.
        (folder / WRITTEN).unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise Internal(f"the data folder {folder} cannot be locked: {error.strerror}", _ELSEWHERE) from error
        owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        raise Conflict(f"another controller (process {owner}) uses the data folder {folder}", _ELSEWHERE) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
