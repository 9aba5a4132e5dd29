"""The controller's settings, and every limit it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from controller.errors import UserError
from controller.policy import KEEP, ON_DEMAND, Policy

BROKER_VARIABLE = "LEPTA_BROKER"
MIB = 1024 * 1024
MOST_MIRRORS = 8


@dataclass(frozen=True)
class Limits:
    """Bounds on everything that comes from outside or may grow. Bytes, counts, seconds."""

    # Uploads and bodies
    upload_bytes: int = 2048 * MIB
    """One file: a model, a data set, a job's input."""
    json_bytes: int = 1 * MIB
    """Body of a JSON request that carries no tensors."""
    infer_bytes: int = 64 * MIB
    """Body of an inference request, after decompression."""
    list_rows: int = 200
    """Rows of a list when the caller names no limit; also the most."""

    # Store
    store_waiting: int = 1000
    """Reads and commits that wait for the one database thread."""
    requests_kept: int = 10_000
    """Inference requests in the log; older ones are dropped."""
    swaps_kept: int = 100
    """Swap records per device."""
    check_bytes: int = 64 * MIB
    """A database up to this size is checked as a whole at start."""
    blob_keep_s: float = 3600.0
    """How long a file that nothing refers to stays."""
    sweep_s: float = 600.0
    """How often such files are looked for."""

    # Fleet
    decisions_per_s: float = 5.0
    inbox: int = 20_000
    """Messages that wait for the loop; QoS 0 messages beyond are dropped and counted."""
    devices: int = 10_000
    silent_s: float = 15.0
    """A device that sent nothing for this long counts as offline."""
    rollout_timeout_s: float = 600.0
    claim_uses: int = 10_000
    claims: int = 1000

    # Identities
    certificate_s: float = 90 * 86400.0
    """How long a device's certificate is good for; it is renewed after two thirds of that."""
    server_certificate_s: float = 365 * 86400.0
    certificate_check_s: float = 86400.0
    """How often the server's certificate is looked at: near its end, or with other addresses, it is signed anew."""
    certificates: int = 32
    """Of one device, unexpired; it has two when it renews in time."""
    devices_pending: int = 1000
    labels: int = 64
    """That an operator gives to one device."""
    clients: int = 1000
    api_keys: int = 1000
    last_used_s: float = 60.0
    """How often it is written down that a key was used."""
    expel_s: float = 5.0
    """A revoked device is put out again for this long, should it come back before the broker knows."""

    # Rates, per second, with what may come at once
    key_rate: tuple[float, int] = (20_000.0, 40_000)
    """Requests of one API key. More than a controller can answer: too much work is refused where it queues, with what
    is under way in sight; this stops a program that has run away."""
    device_rate: tuple[float, int] = (200.0, 2000)
    """Requests of one device."""
    stranger_rate: tuple[float, int] = (10.0, 100)
    """Requests of one address that prove nothing: enrolment, health, wrong keys."""
    rates_kept: int = 10_000
    """Callers whose rate is remembered."""

    # Delivery
    chunk_window: int = 2
    """Chunks in flight at the broker. It acknowledges before subscribers have read: more only fills its buffers
    (5 MB to 20 agents, embedded broker: 13 MB with 2, 68 MB with 32)."""
    blobs_at_once: int = 64
    passing_bytes: int = 32 * MIB
    """Inputs of requests and shards that wait in memory for their devices; more goes through files."""

    # Inference
    requests_waiting: int = 1024
    """In the house at once; more are refused."""
    request_attempts: int = 3
    request_attempt_s: float = 10.0
    """An attempt that takes longer is given up. One that is late, by what its device was measured at, is tried at
    another device long before."""
    request_deadline_s: float = 30.0
    """What a request may ask for at most, and gets if it asks for nothing."""
    request_gather_s: float = 0.002
    """How long a request may wait to leave in one message with others, while its device has some to answer."""
    repository_wait_s: float = 30.0
    """How long a caller of /v2/repository waits for the devices; Triton's clients give up after 60 s."""
    pictures_at_once: int = 2
    """Pictures that are unpacked at the same time, each in a thread: one may take 200 MB."""
    request_wait_ms: float = 40.0
    """How long a request may wait in the queue of a device; what would wait longer is refused. Models whose one run
    takes more than a quarter of that may wait for four runs. While more ask than fit into it, those let in wait for a
    sixteenth of it."""
    requests_flush_s: float = 1.0
    """How often finished requests are written to the log."""

    preparations: int = 64
    """Models that are brought to devices because somebody asked for them, at once."""
    preparation_waiters: int = 100
    """Requests that wait for that, with their inputs in memory; others are told at once where to look."""

    # Stored answers
    answers_waiting: int = 20_000
    """Answers that wait to be written; beyond, the oldest are dropped and counted."""
    answers_waiting_bytes: int = 32 * MIB
    answers_batch: int = 5000
    """Answers that one commit writes."""
    answers_bytes: int = 1024 * MIB
    """Of all models together; each has its own limit below."""

    # Jobs
    jobs_open: int = 100
    job_scratch_bytes: int = 64 * 1024 * MIB
    """What one job may take on the disk: its rows laid out, and the columns of its result."""
    job_stall_s: float = 600.0
    """A job whose artifact no device has served for this long fails."""

    # Bindings
    bindings: int = 1000

    # Bus
    bus_at_once: int = 100
    """QoS 1 messages sent without waiting for acknowledgements; a broker may ask for less."""
    bus_in_flight: int = 1000
    """QoS 1 messages that the broker has not acknowledged; more are refused."""
    bus_out_bytes: int = 16 * MIB
    """Bytes that wait for the socket; more messages are refused."""
    reconnect_first_s: float = 0.2
    reconnect_most_s: float = 10.0
    connect_s: float = 10.0
    keepalive_s: int = 30

    # Broker
    broker_payload_bytes: int = 512 * 1024
    broker_connections: int = 10_000
    broker_start_s: float = 15.0
    broker_stop_s: float = 5.0
    broker_restart_first_s: float = 0.2
    broker_restart_most_s: float = 10.0
    broker_log_bytes: int = 4 * MIB
    """A broker's log that is longer begins again."""

    # Optimizer
    runs_waiting: int = 100
    optimizer_idle_s: float = 300.0
    """An optimizer that had nothing to do for this long is stopped."""
    optimizer_stop_s: float = 5.0
    optimizer_cancel_s: float = 1.5
    """An optimizer that goes on this long after a cancellation is ended."""
    optimizer_line_bytes: int = 8 * MIB
    """One line of the optimizer's output."""
    optimizer_lines: int = 10_000
    """Lines of its output that wait to be read."""
    optimizer_cache_bytes: int = 4096 * MIB
    """What the optimizer's passes made, kept for the next run of the same model."""
    recipe_bytes: int = 16 * 1024
    run_attempts: int = 3
    """A run that was at work when the controller was killed begins again; after so many times it fails."""
    watchers: int = 100
    """Callers that follow runs by server-sent events at once."""
    watch_beat_s: float = 10.0
    """One who follows hears something at least this often."""
    examples: int = 8
    """Examples that are remembered."""

    # Serving
    keep_alive_s: int = 75
    """How long an idle HTTP connection stays open: longer than clients keep theirs, or they ask into a closed one."""

    # Stopping
    shutdown_s: float = 5.0
    """How long open HTTP requests may take when the controller stops."""


@dataclass(frozen=True)
class Settings:
    """What `lepta up` is told. `port` 0 takes a free one."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    broker: str = field(default="auto", repr=False)
    """`auto`, `embedded`, `mosquitto`, or `mqtt://[USER:PASSWORD@]HOST[:PORT]`. Not shown: it may hold a password."""
    broker_host: str = "127.0.0.1"
    """Where a broker of our own listens."""
    broker_port: int = 0
    """0 takes a free one at the first start and keeps it, because enrolled agents know it."""
    lan: bool = False
    """Serve other machines: TLS from our own CA, devices known by their certificates."""
    names: tuple[str, ...] = ()
    """What other machines call this one, names or addresses; the first is told to devices."""
    insecure: bool = False
    """Bind off loopback without TLS."""
    agents_port: int = 8883
    clients_port: int = 8884
    mirrors: tuple[str, ...] = ()
    """Addresses below which files lie under their digests, told to devices; a relative one belongs to ours."""
    policy: Policy = field(default_factory=Policy)
    """What holds for models that say nothing else."""
    limits: Limits = Limits()

    @property
    def everywhere(self) -> bool:
        """Listen on every address of this machine, IPv4 and IPv6."""
        return self.host in ("", "::", "0.0.0.0")


def check_mirrors(addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses. Raises UserError for one that no device could use."""
    if len(addresses) > MOST_MIRRORS:
        raise UserError(f"{len(addresses)} mirrors are too many", f"name {MOST_MIRRORS} at most")
    for address in addresses:
        parts = urlsplit(address)
        if len(address) > 200 or parts.query or parts.fragment or (parts.scheme or "http") not in ("http", "https"):
            raise UserError(
                f"--mirror {address[:200]!r} is no address below which files lie",
                "http://HOST/PATH, https://HOST/PATH, or a path on this controller",
            )
        if parts.username is not None:
            raise UserError("--mirror holds a name or password, and every device would be told", "serve it without")
    return tuple(addresses)


def choose_broker(argument: str | None, environment: Mapping[str, str]) -> str:
    """The broker to use: the command line's, else the environment's, else `auto`.

    Everybody on a machine can read a command line: an address with a password is refused there.
    """
    if argument is None:
        return environment.get(BROKER_VARIABLE) or "auto"
    if urlsplit(argument).password is not None:
        raise UserError(
            "a broker's password does not belong on the command line, where every user of this machine can read it",
            f"set {BROKER_VARIABLE} to the address instead",
        )
    return argument


def policy_of(on_demand: str, keep: str) -> Policy:
    """The controller's policy from words; raises UserError for one that is not known."""
    for name, word, known in (("--on-demand", on_demand, ON_DEMAND), ("--keep", keep, KEEP)):
        if word not in known:
            raise UserError(f"{name} {word[:40]!r} is not known", f"one of {', '.join(known)}")
    return msgspec.convert({"on_demand": on_demand, "keep": keep}, Policy)
