"""The sources that one agent may fetch from, as its configuration and its identity say."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from agent import ways
from agent.contract.messages import Stamper
from agent.contract.packing import PACKINGS
from agent.enroll import Identity
from agent.fetch import Fetcher
from agent.keeper import Keeper
from agent.link import Connection
from agent.loop import Loop
from agent.mqtt_source import MqttSource
from agent.settings import AgentSettings
from agent.sources import Source, Sources
from agent.ways import Choice, Way
from firmware_profiles import profile
from firmware_profiles.profile import Facts, Fetch, Profile

_FILES = "/api/v1/files/"


def sources_of(
    loop: Loop,
    link: Connection,
    identity: Identity,
    settings: AgentSettings,
    stamper: Stamper,
    fetcher: Callable[[], Fetcher],
    facts: Facts,
    keeper: Keeper,
) -> Sources:
    """`fetcher` gives the one that takes the chunks; it is made after its sources. `keeper` knows the mirrors of which
    the controller told."""

    def make(way: Way) -> Source:
        if way == "mqtt":
            return MqttSource(link, identity.agent, stamper.encode, packings_of(settings, identity))
        return _http(loop, identity, settings, fetcher, sources, way)

    plain = choice_of(settings, profile.choose(profile.builtin().values(), facts), bool(identity.controller))

    def choice() -> Choice:
        told = keeper.current.mirrors
        return msgspec.structs.replace(plain, mirrors=ways.mirrors(settings.mirror, told, identity.controller))

    sources = Sources(choice, make)
    return sources


def choice_of(settings: AgentSettings, class_: Profile | None, controller: bool) -> Choice:
    """PURE: what a device was told wins over what its class does. `controller`: is its HTTP address known?"""
    limits, usual = settings.limits, class_.fetch if class_ is not None else Fetch()
    slow = min(limits.slow_kb_s, limits.fetch_kb_s / 4) if limits.fetch_kb_s else limits.slow_kb_s
    return Choice(
        fetch=settings.fetch or usual.way,
        http_mb=usual.http_mb if limits.http_mb is None else limits.http_mb,
        controller=controller,
        slow_s=limits.slow_s,
        slow_kb=slow,
    )


def packings_of(settings: AgentSettings, identity: Identity) -> tuple[str, ...]:
    """PURE: in which ways inputs may come packed. Without a line in between it would only cost time."""
    host = identity.broker.host or urlsplit(identity.controller).hostname or ""
    here = host in ("localhost", "::1") or host.startswith("127.")
    return () if settings.packing == "never" or (settings.packing == "auto" and here) else PACKINGS


def _http(
    loop: Loop, identity: Identity, settings: AgentSettings, fetcher: Callable[[], Fetcher], sources: Sources, way: Way
) -> Source:
    from agent.clock import Clock
    from agent.http_source import HttpSource  # Most agents never need it.
    from agent.trust import Door

    def take(digest: str, number: int, size: int, data: bytes) -> None:
        fetcher().chunk(digest, number, size, data)

    def failed(digest: str, reason: str, for_good: bool) -> None:
        sources.failed(digest, way, "us" if way == "http" else "network", reason, for_good=for_good)

    timeout = settings.limits.http
    base = identity.controller + _FILES if way == "http" else way
    if ways.origin(base) != ways.origin(identity.controller):
        # Not one of ours: no token, and the system's trust store.
        return HttpSource(loop, base, timeout, take, failed)
    trusted = Door(identity.ca, Clock(settings.folder)).context if identity.ca else None
    return HttpSource(loop, base, timeout, take, failed, token=identity.device_token, context=trusted)
