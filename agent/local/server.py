"""The local endpoint on the supervisor's loop: connections, their limits, and the way of a question to its model."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Protocol

from agent import frames
from agent.contract.http1 import Request
from agent.contract.oip_names import CODINGS, HEADER_LENGTH
from agent.contract.wire import no_delay
from agent.lines import Ask, Waiting
from agent.local import place, replies, routes
from agent.local.connection import Connection
from agent.local.place import Place
from agent.local.tells import Models, Tells
from agent.loop import Loop, Timer
from agent.serving import Member
from agent.settings import Limits

_log = logging.getLogger("lepta.agent.local")
_SWEEP_S = 1.0
_HEADER_LENGTH = HEADER_LENGTH.lower()


class EndpointError(OSError):
    """The address cannot be listened on."""


class Agent(Models, Protocol):
    """Who has the models, and has them answer: a supervisor."""

    def ask(self, question: Ask, within: float) -> None: ...


class Endpoint:
    """Bound when made; `start` takes connections, `close` ends them. `wall`: s since 1970. Raises EndpointError."""

    def __init__(self, loop: Loop, agent: Agent, where: Place, limits: Limits, wall: Callable[[], float]) -> None:
        self._loop = loop
        self._agent = agent
        self._place = where
        self._limits = limits
        self._wall = wall
        self._tells = Tells(agent, limits.local_mb << 20)
        self._connections: set[Connection] = set()
        self._sweep: Timer | None = None
        self._socket = _bound(where)

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        self._socket.listen(128)
        self._loop.watch(self._socket, self._accept)
        _log.info("programs on this device may ask at http://%s:%d/v2", self._place.host, self.port)

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._loop.forget(self._socket)
        self._socket.close()
        for connection in list(self._connections):
            connection.close()

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer it, now or once its model has. (connection.Handler)"""
        refusal = place.foreign(self._place, request.headers)
        route = routes.find(request.path)
        if refusal:
            connection.reply(replies.error(403, refusal, keep=request.keep))
        elif route is None:
            connection.reply(replies.error(404, "nothing is here; see /v2 and /v2/models/NAME", keep=request.keep))
        elif request.method != route.method:
            told = f"{route.method} is expected here"
            connection.reply(replies.error(405, told, keep=request.keep))
        elif route.kind == "infer":
            self._infer(connection, request, route)
        else:
            connection.reply(self._tells.tell(route, request))

    def closed(self, connection: Connection) -> None:
        """(connection.Handler)"""
        self._connections.discard(connection)

    # -- requests

    def _infer(self, connection: Connection, request: Request, route: routes.Route) -> None:
        coding = request.headers.get("content-encoding", "identity").lower()
        if coding != "identity" and coding not in CODINGS:
            told = "send identity, gzip or deflate as Content-Encoding"
            connection.reply(replies.error(415, told, keep=request.keep))
            return
        problem = self._tells.absent(route)
        if problem:
            connection.reply(replies.error(404, problem, keep=request.keep))
            return
        length = request.headers.get(_HEADER_LENGTH)
        question = frames.Question(request.body, length, coding, int(route.version or 0))
        within = self._limits.local_wait
        answer = connection.expect(self._loop.now() + within, lambda: self._tells.count_late(route, within))

        def answered(item: Waiting, computed: frames.Computed, member: Member | None) -> None:
            if answer(computed):
                self._tells.count(item, computed, member, route.version, self._loop.now(), int(self._wall() * 1000))

        self._agent.ask(Ask(route.model, question, answered), within)

    # -- connections

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:  # Out of file descriptors, or the caller is gone.
                _log.warning("a connection of a local program is lost: %s", error)
                return
            sock.setblocking(False)
            no_delay(sock)
            taken, most = len(self._connections), self._limits.local_connections
            if taken >= 2 * most:
                sock.close()
                continue
            connection = Connection(self._loop, sock, self, self._limits.local_mb << 20)
            self._connections.add(connection)
            if taken >= most:
                connection.reply(replies.error(503, f"at most {most} connections at once", keep=False), keep=False)
            if self._sweep is None:
                self._sweep = self._loop.call_later(_SWEEP_S, self._look)

    def _look(self) -> None:
        now = self._loop.now()
        for connection in list(self._connections):
            connection.look(now, self._limits.http, self._limits.local_idle)
        self._sweep = self._loop.call_later(_SWEEP_S, self._look) if self._connections else None


def _bound(where: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    try:
        sock.bind((where.host, where.port))
    except (OSError, OverflowError) as error:
        sock.close()
        raise EndpointError(f"{where.host}:{where.port} cannot be listened on: {error}; choose another port") from error
    return sock
