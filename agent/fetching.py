"""The sources that one agent may fetch from, as its configuration and its identity say."""

from __future__ import annotations

from collections.abc import Callable

from agent.contract.messages import Message
from agent.enroll import Identity
from agent.fetch import Fetcher
from agent.link import Connection
from agent.loop import Loop
from agent.mqtt_source import MqttSource
from agent.settings import AgentSettings
from agent.sources import Source, Sources
from agent.ways import Choice, Way

_FILES = "/api/v1/files/"


def sources_of(
    loop: Loop,
    link: Connection,
    identity: Identity,
    settings: AgentSettings,
    encode: Callable[[Message], bytes],
    fetcher: Callable[[], Fetcher],
) -> Sources:
    """`fetcher` gives the one that takes the chunks; it is made after its sources."""

    def make(way: Way) -> Source:
        if way == "mqtt":
            return MqttSource(link, identity.agent, encode)
        return _http(loop, identity, settings, fetcher, sources, way)

    sources = Sources(_choice(settings, identity), make)
    return sources


def _choice(settings: AgentSettings, identity: Identity) -> Choice:
    limits = settings.limits
    slow = min(limits.slow_kb_s, limits.fetch_kb_s / 4) if limits.fetch_kb_s else limits.slow_kb_s
    return Choice(
        fetch=settings.fetch,
        http_mb=limits.http_mb,
        mirror=bool(settings.mirror),
        controller=bool(identity.controller),
        slow_s=limits.slow_s,
        slow_kb=slow,
    )


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
    if way == "mirror":  # Not one of ours: no token, and the system's trust store.
        return HttpSource(loop, settings.mirror.rstrip("/") + "/", timeout, take, failed)
    trusted = Door(identity.ca, Clock(settings.folder)).context if identity.ca else None
    base = identity.controller + _FILES
    return HttpSource(loop, base, timeout, take, failed, token=identity.device_token, context=trusted)
