"""What the local endpoint tells by itself: everything but answers of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from agent import VERSION, frames
from agent.contract import oip_models, stored_numbers
from agent.contract.http1 import Request
from agent.contract.messages import ModelState
from agent.contract.oip_models import EXTENSIONS, PLATFORM, READY, Metadata
from agent.contract.oip_stats import Statistics
from agent.lines import Waiting
from agent.local import replies
from agent.local.routes import Kind, Route
from agent.local.standings import standings
from agent.serving import Member, Serving

_NOT_HERE = (
    "what this device runs is decided by its controller, so that it stays so over restarts: ask there, by "
    "`lepta rollout start {model}` or /v2/repository at its address"
)

_OF_ITS_OWN = ("load", "unload")
"""Kinds that are answered alike whether the model is here or not."""


class Models(Protocol):
    """Who has the models: a supervisor."""

    @property
    def servings(self) -> Mapping[str, Serving]: ...

    def states(self) -> tuple[ModelState, ...]: ...


class Tells:
    def __init__(self, models: Models, most_bytes: int) -> None:
        """`most_bytes`: of a request."""
        self._models = models
        self._most_bytes = most_bytes
        self._statistics = Statistics()
        self._by_kind: dict[Kind, Callable[[Route, Request], bytes]] = {
            "server": self._server,
            "live": self._live,
            "ready": self._ready,
            "model": self._model,
            "model ready": self._model_ready,
            "config": self._config,
            "stats": self._stats,
            "all stats": self._all_stats,
            "index": self._index,
            "load": self._load,
            "unload": self._load,
        }

    def tell(self, route: Route, request: Request) -> bytes:
        """The whole response to anything but `infer`."""
        if route.kind in _OF_ITS_OWN or not route.model:
            problem = ""
        else:
            problem = self.absent(route._replace(version="") if route.kind == "stats" else route)
        if problem:
            return replies.error(404, problem, keep=request.keep)
        return self._by_kind[route.kind](route, request)

    def absent(self, route: Route) -> str:
        """Why it is not here; empty if it is."""
        serving = self._models.servings.get(route.model)
        if serving is None:
            return f"no model is called {route.model[:100]!r} on this device"
        member = serving.member
        if route.version and (member is None or str(member.pointer.wanted.version) != route.version):
            does = f"this device serves version {member.pointer.wanted.version}" if member else "none serves yet"
            return f"not version {route.version[:20]!r}: {does}; leave the version out for the one that does"
        return ""

    def count(
        self, item: Waiting, computed: frames.Computed, member: Member | None, asked: str, now: float, at_ms: int
    ) -> None:
        """A request of a program here is answered. `asked`: the version that it insisted on, empty for any; `at_ms`:
        milliseconds since 1970."""
        version = member.pointer.wanted.version if member is not None else 0
        model, whole_ms = item.message.model, (now - item.received) * 1000
        if computed.fault is not None:
            self._statistics.failed(model, version, int(asked or 0), whole_ms)
            return
        self._statistics.answered(
            model,
            version,
            rows=computed.rows,
            at_ms=at_ms,
            whole_ms=whole_ms,
            queue_ms=max(0.0, item.sent - item.received) * 1000,
            service_ms=computed.service_ms,
        )

    def count_late(self, route: Route, waited_s: float) -> None:
        """A request was not answered in time."""
        self._statistics.failed(route.model, 0, int(route.version or 0), waited_s * 1000)

    # -- of the server

    def _server(self, _route: Route, request: Request) -> bytes:
        return replies.json({"name": "lepta-agent", "version": VERSION, "extensions": EXTENSIONS}, keep=request.keep)

    def _live(self, _route: Route, request: Request) -> bytes:
        return replies.json({"live": True}, keep=request.keep)

    def _ready(self, _route: Route, request: Request) -> bytes:
        ready = all(serving.live for serving in self._models.servings.values())
        return replies.json({"ready": ready}, 200 if ready else 503, keep=request.keep)

    def _all_stats(self, _route: Route, request: Request) -> bytes:
        models = sorted(self._statistics.models() | set(self._models.servings))
        listed = [stats for model in models for stats in self._statistics.of(model, self._versions(model))]
        return replies.json({"model_stats": listed}, keep=request.keep)

    # -- of a model

    def _model(self, route: Route, request: Request) -> bytes:
        member = self._models.servings[route.model].member
        if member is None:
            return self._on_its_way(route, request)
        start = member.start
        told = Metadata(
            name=route.model,
            versions=(str(member.pointer.wanted.version),),
            platform=PLATFORM,
            inputs=oip_models.infos(start.inputs, stored_numbers.common([start.inputs])),
            outputs=oip_models.infos(start.outputs, {}),
        )
        return replies.json(told, keep=request.keep)

    def _config(self, route: Route, request: Request) -> bytes:
        member = self._models.servings[route.model].member
        if member is None:
            return self._on_its_way(route, request)
        inputs, outputs = (oip_models.infos(side, {}) for side in (member.start.inputs, member.start.outputs))
        return replies.json(oip_models.config(route.model, inputs, outputs, self._most_bytes), keep=request.keep)

    def _model_ready(self, route: Route, request: Request) -> bytes:
        live = self._models.servings[route.model].live
        version = {"version": route.version} if route.version else {}
        told = {"name": route.model, **version, "ready": live}
        return replies.json(told, 200 if live else 503, keep=request.keep)

    def _stats(self, route: Route, request: Request) -> bytes:
        listed = self._statistics.of(route.model, self._versions(route.model))
        found = [stats for stats in listed if route.version in ("", stats.version)]
        return replies.json({"model_stats": found}, keep=request.keep)

    def _versions(self, model: str) -> set[int]:
        serving = self._models.servings.get(model)
        return {serving.member.pointer.wanted.version} if serving is not None and serving.member is not None else set()

    def _on_its_way(self, route: Route, request: Request) -> bytes:
        return replies.error(503, f"{route.model} is on its way and does not serve yet", keep=request.keep)

    # -- of the repository

    def _index(self, _route: Route, request: Request) -> bytes:
        try:
            wanted = oip_models.wanted(request.body)
        except ValueError as error:
            return replies.error(400, str(error), keep=request.keep)
        live = {model for model, serving in self._models.servings.items() if serving.live}
        listed = standings(self._models.states(), live)
        told = [standing for standing in listed if not wanted.ready or standing.state == READY]
        return replies.json(told, keep=request.keep)

    def _load(self, route: Route, request: Request) -> bytes:
        return replies.error(403, _NOT_HERE.format(model=route.model[:100]), keep=request.keep)
