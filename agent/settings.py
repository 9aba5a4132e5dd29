"""Everything the agent can be told: its configuration and every limit it keeps."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


DEFAULT_CONFIG = Path("/etc/lepta/agent.toml")
"""Read where no other is named, if it is there."""


class SettingsError(ValueError):
    """A configuration that cannot be used: names the file, the key, and what is allowed."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent allows itself and others. Times in seconds unless the name says otherwise."""

    queue: int = 256
    """Requests that wait per model; one more is answered with a fault."""
    shards: int = 64
    """Shards that wait per model."""
    pipeline: int = 2
    """Requests inside a worker at once: one runs, the others wait in its pipe so that it never idles."""
    batch: int = 16
    """And at most so many, where that makes fewer trips over the pipe: small models, and requests that wait."""
    batch_wait_ms: float = 1.0
    """An answer may wait so long for those of other requests that are in its worker already; 0: never."""
    outbox: int = 512
    """Messages kept for the broker while it is away or slow."""
    outbox_mb: int = 16
    finished: int = 1024
    """Shards and commands remembered so that none is done twice."""
    bound_kb: int = 512
    """Greatest payload that is read from a bound topic."""
    disk_mb: int = 1024
    """Quota of the blob store; blobs that nothing points to leave first."""
    reserve_mb: int = 16
    """Left free on the disk: the state has to be saved, and the system lives there too."""
    secure_mb: int = 4
    """After this much of a blob, what came is made durable: a power cut costs at most as much."""
    manifest_kb: int = 512
    blob_mb: int = 512
    http_mb: int | None = None
    """Blobs of at least this size come by HTTP, where the controller's address is known; 0: none is too large. None: as
    the device's profile says."""
    fetch_kb_s: int = 0
    """Fetch no faster than this, on average; 0: as fast as it comes."""
    slow_s: float = 15.0
    slow_kb_s: float = 16.0
    """A source that brings less over `slow_s` is left for another one, if there is one."""
    chunk_silence: float = 1.0
    """After this long without a chunk the missing ones are asked for again."""
    chunk_asks: int = 60
    """Times in a row that the same chunks are asked for without any arriving."""
    retry_first: float = 5.0
    """Wait before a failed (not refused) swap is tried again; doubles up to `retry_most`."""
    retry_most: float = 300.0
    start: float = 60.0
    """A worker must be ready within this time."""
    probe: float = 120.0
    behind: float = 2.0
    """A candidate leaves the processors to everybody else for this long, then takes its share."""
    compute: float = 60.0
    """A worker that answers nothing for this long is ended."""
    drain: float = 10.0
    """An old worker may take this long to finish what it holds."""
    watch_answers: int = 20
    watch_s: float = 1.0
    """A switched model is watched until this many answers or this long. These and the next are for manifests that
    do not say it themselves."""
    watch_failures: int = 3
    """Fewer faulty answers during the watch never roll the model back."""
    watch_error_rate: float = 0.05
    """Share of faulty answers that is tolerated above what the version before had."""
    watch_p95_ratio: float = 5.0
    """How many times the p95 of the version before; 0: not looked at."""
    watch_p95_ms: float = 0.0
    """Greatest p95 of one row; 0: no limit."""
    watch_drift: float = 0.4
    """Share of answers that may move to other classes: wide, because what people ask changes too."""
    watch_crashes: int = 1
    """Ends of its worker that roll it back."""
    memory_reserve_mb: float = 16.0
    """Left free when a candidate is loaded; without room for two, the old version leaves first."""
    restart_first: float = 0.05
    """Wait before a dead worker is replaced; doubles up to `restart_most`, and falls back once it serves."""
    restart_most: float = 30.0
    steady: float = 60.0
    """A version that served for this long is not to blame if the agent goes down."""
    crash_starts: int = 4
    """Starts that end before that; with one more the agent goes back to the previous version."""
    load_every: float = 1.0
    load_idle: float = 5.0
    """Load is sent this often where nothing runs."""
    hello_spread: float = 1.0
    """After a new controller boot, hello is sent within this time."""
    connect: float = 5.0
    keepalive: int = 20
    at_once: int = 1
    """Messages with QoS 1 that the broker sends us without waiting for acknowledgements: it holds a copy of each. Many
    devices that fetch the same blob would else take as many times its size."""
    resubscribe: float = 30.0
    """A bound topic that the broker refused is asked for again after this long."""
    reconnect_first: float = 0.2
    reconnect_most: float = 30.0
    http: float = 30.0
    local_connections: int = 64
    """Of programs that use the local endpoint."""
    local_mb: int = 16
    """Body of a request there."""
    local_wait: float = 10.0
    """A request there is answered within this time, with 503 if need be."""
    local_idle: float = 120.0
    """A connection there that asks nothing for this long is closed."""
    log_mb: float = 1.0
    """Size at which `log_file` is put aside; three old ones are kept."""
    approval_first: float = 2.0
    """A device that must be approved asks again after this long; doubles up to `approval_most`."""
    approval_most: float = 30.0
    renew_first: float = 30.0
    """Wait before a certificate that was not renewed is asked for again; doubles up to `renew_most`."""
    renew_most: float = 3600.0
    """And at least this often the agent looks at the clock."""


class Simulate(msgspec.Struct, frozen=True, kw_only=True):
    """Pretend to be a smaller device."""

    extra_ms_per_row: float = 0.0
    free_memory_mb: float | None = None
    """What seems to be free."""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent runs with."""

    controller: str = ""
    """URL; needed only for the first start."""
    name: str = ""
    """Empty: made from the hardware's id, so that one image suits a whole fleet."""
    data: str = ""
    """Empty: `/var/lib/lepta` for root, `~/.local/share/lepta-agent` for others."""
    token_file: str = ""
    """File that holds the claim token for the first start."""
    ca_fingerprint: str = ""
    """SHA-256 of the controller's CA, in hex; needed for the first start with an https:// controller."""
    insecure: bool = False
    """Let the first start send the token to another machine without TLS."""
    runtime: Literal["", "ai-edge-litert", "tflite-runtime"] = ""
    """Empty: whatever is installed, best first."""
    fetch: Literal["", "mqtt", "http"] = ""
    """What is tried first; where the controller's HTTP address is known, the other one is the second choice. Empty: as
    the device's profile says."""
    packing: Literal["auto", "always", "never"] = "auto"
    """Do a job's inputs come packed where they shrink? `auto`: unless the controller is on this machine."""
    mirror: str = ""
    """URL below which the fleet's blobs lie under their digests: asked first, and without a token."""
    serve: str = ""
    """HOST:PORT on loopback where programs on this device ask its models by HTTP; empty: nowhere."""
    serve_beyond_loopback: bool = False
    """Let `serve` be an address that other machines reach: without TLS, and whoever reaches it may ask."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_file: str = ""
    """Written instead of standard error, where no service manager collects that; 0600, at most four times `log_mb`."""
    facts: dict[str, Any] = {}
    labels: dict[str, str] = {}
    simulate: Simulate = Simulate()
    limits: Limits = Limits()

    @property
    def folder(self) -> Path:
        return Path(self.data).expanduser() if self.data else default_folder()


def default_folder() -> Path:
    """Where an agent that was told nothing keeps its data."""
    return Path("/var/lib/lepta") if os.geteuid() == 0 else Path("~/.local/share/lepta-agent").expanduser()


def read(path: Path) -> AgentSettings:
    """Read an `agent.toml`; raise SettingsError naming file and key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    return parse(content, str(path))


def parse(content: Mapping[str, Any], origin: str) -> AgentSettings:
    """Settings from decoded TOML. `origin` is named in errors."""
    _refuse_unknown(content, AgentSettings, origin, "")
    try:
        settings = msgspec.convert(content, AgentSettings)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        key = where.rstrip("`") or "?"
        raise SettingsError(f"{origin}: key {key!r}: {what}") from error
    if settings.mirror and not settings.mirror.startswith(("http://", "https://")):
        raise SettingsError(f"{origin}: key 'mirror': an http:// or https:// URL is expected")
    return settings


def _refuse_unknown(content: Mapping[str, Any], type_: type[msgspec.Struct], origin: str, prefix: str) -> None:
    allowed = type_.__struct_fields__
    hints = get_type_hints(type_)
    for key, value in content.items():
        if key not in allowed:
            raise SettingsError(f"{origin}: unknown key '{prefix}{key}'; allowed: {', '.join(allowed)}")
        nested = hints[key]
        if isinstance(value, dict) and isinstance(nested, type) and issubclass(nested, msgspec.Struct):
            _refuse_unknown(value, nested, origin, f"{prefix}{key}.")
