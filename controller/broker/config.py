"""PURE: configuration files of the brokers that the controller starts itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.contract import bindings, topics
from controller.broker.port import BoundTopic, ClientRight
from controller.settings import Limits

PASSWORD_FILE, CLIENTS_FILE = "mosquitto.passwd", "clients.passwd"
AGENTS_ACL_FILE, CLIENTS_ACL_FILE, CRL_FILE = "agents.acl", "clients.acl", "crl.pem"

# mosquitto's own choice. It counts while everybody waits: passwords here are drawn at random and need no more.
_ITERATIONS = 101
_HASH = re.compile(r"\$7\$[0-9]+\$[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+")
# What rumqttd keeps of each topic filter for as long as it runs, delivered or not, and a filter per blob adds up.
# A subscriber that falls further behind than this misses messages: it asks again (blobs) or is asked again (the rest).
_SEGMENT_BYTES, _SEGMENTS = 512 * 1024, 8


@dataclass(frozen=True)
class Listen:
    """Where a broker listens and who may come in."""

    host: str
    port: int
    username: str
    password: str
    path: str = ""
    """Of a Unix socket beside that, which only mosquitto can have."""


def rumqttd(listen: Listen, limits: Limits) -> str:
    """TOML for the embedded broker (rumqttd): one MQTT 5 listener. Its own defaults are 20 KB and all interfaces."""
    return f"""id = 0

[router]
id = 0
max_connections = {limits.broker_connections}
max_outgoing_packet_count = 200
max_segment_size = {_SEGMENT_BYTES}
max_segment_count = {_SEGMENTS}

[v5.1]
name = "lepta"
listen = "{listen.host}:{listen.port}"
next_connection_delay_ms = 0

[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = {limits.broker_payload_bytes}
max_inflight_count = 200
dynamic_filters = true

[v5.1.connections.auth]
{json.dumps(listen.username)} = {json.dumps(listen.password)}
"""


@dataclass(frozen=True)
class Lan:
    """The listeners for other machines. `host` empty: all interfaces; `agents_port` and `clients_port` as Settings."""

    host: str
    agents_port: int
    clients_port: int
    ca: Path
    certificate: Path
    key: Path


def mosquitto(listen: Listen, lan: Lan | None, limits: Limits, folder: Path, user: str) -> str:
    """mosquitto.conf; `folder` takes its database, `user` is who runs it (as root it would become another user)."""
    near = _near(listen, limits, folder) if listen.path else ""
    others = _agents(lan, limits, folder) + _clients(lan, limits, folder) if lan else ""
    return f"""user {user}
per_listener_settings true
set_tcp_nodelay true
persistence true
persistence_location {folder}/
persistent_client_expiration 7d
max_packet_size {limits.broker_payload_bytes}
max_inflight_messages 200
max_queued_messages 10000
max_queued_bytes {64 * 1024 * 1024}
sys_interval 0
connection_messages false
log_dest stderr
log_type error
log_type warning

listener {listen.port} {listen.host}
{_controllers(limits, folder)}
{near}{others}"""


def _near(listen: Listen, limits: Limits, folder: Path) -> str:
    """The folder that it lies in keeps others out, and they would lack the password."""
    return f"""
listener 0 {listen.path}
{_controllers(limits, folder)}
"""


def _controllers(limits: Limits, folder: Path) -> str:
    return f"""allow_anonymous false
password_file {folder / PASSWORD_FILE}
max_connections {limits.broker_connections}"""


def _agents(lan: Lan, limits: Limits, folder: Path) -> str:
    """Who they are says their certificate, and nothing that they could choose: neither user name nor client id."""
    return f"""
{_secure(lan, lan.agents_port, limits)}
require_certificate true
crlfile {folder / CRL_FILE}
use_identity_as_username true
use_username_as_clientid true
acl_file {folder / AGENTS_ACL_FILE}
"""


def _clients(lan: Lan, limits: Limits, folder: Path) -> str:
    return f"""
{_secure(lan, lan.clients_port, limits)}
password_file {folder / CLIENTS_FILE}
use_username_as_clientid true
acl_file {folder / CLIENTS_ACL_FILE}
"""


def _secure(lan: Lan, port: int, limits: Limits) -> str:
    return f"""listener {port} {lan.host}
allow_anonymous false
max_connections {limits.broker_connections}
cafile {lan.ca}
certfile {lan.certificate}
keyfile {lan.key}
tls_version tlsv1.2"""


def agents_acl(bound: Iterable[BoundTopic] = ()) -> str:
    """Rights of devices: %u is the common name of the certificate. What is not named is denied."""
    up = [topics.agent("+", kind).replace("+", "%u") for kind in topics.AGENT_UP]
    down = [topics.agent("+", kind).replace("+", "%u") for kind in topics.AGENT_DOWN]
    write = [*up, f"{topics.predictions('+', '+').removesuffix('+')}%u"]
    read = [*down, topics.agent_blob("+", "+", "+").replace("+", "%u", 1), topics.blob("+", "+")]
    rights = _patterns("write", write) + _patterns("read", [*read, topics.CONTROLLER_STATUS])
    return rights + _bound(list(bound))


def _bound(bound: Sequence[BoundTopic]) -> str:
    """Topics of bindings. No topic that passes the check can be taken for a pattern, or begin a line of its own."""
    for each in bound:
        bindings.check_topic(each.topic)
    everybody = _patterns("read", dict.fromkeys(b.topic.replace(bindings.DEVICE, "%u") for b in bound if not b.devices))
    named: dict[str, list[str]] = {}
    for each in bound:
        for device in each.devices:
            named.setdefault(topics.check_name(device), []).append(each.topic.replace(bindings.DEVICE, device))
    users = (
        f"user {device}\n" + "".join(f"topic read {topic}\n" for topic in dict.fromkeys(wanted))
        for device, wanted in sorted(named.items())
    )
    return everybody + "".join(users)


def clients_acl(clients: Iterable[ClientRight]) -> str:
    """Rights of users' programs: %u is the name that they log in with."""
    write = _patterns("write", [topics.model_infer("+")])
    read = _patterns("read", [topics.client_answer("+").replace("+", "%u")])
    return write + read + "".join(_granted(client) for client in clients)


def _granted(client: ClientRight) -> str:
    lines = [f"topic read {topics.predictions(model, '+')}\n" for model in client.predictions]
    for topic in client.publishes:
        bindings.check_own_topic(topic)
        lines.append(f"topic write {topic}\n")
    return f"user {topics.check_name(client.name)}\n" + "".join(lines)


def _patterns(access: str, filters: Iterable[str]) -> str:
    return "".join(f"pattern {access} {filter_}\n" for filter_ in filters)


def clients_passwords(clients: Iterable[ClientRight], nobody: bytes) -> str:
    """A password file that is never empty, which mosquitto might take for none: its first user is `Nobody`, a name
    that no client has, with a password that is drawn for the purpose."""
    lines = [mosquitto_passwd("Nobody", nobody.hex(), nobody)]
    for client in clients:
        if not _HASH.fullmatch(client.password):
            raise ValueError(f"the password of client {client.name} is not hashed")
        lines.append(f"{topics.check_name(client.name)}:{client.password}\n")
    return "".join(lines)


def mosquitto_passwd(username: str, password: str, salt: bytes) -> str:
    """One line of a mosquitto 2.x password file."""
    return f"{username}:{client_password(password, salt)}\n"


def client_password(password: str, salt: bytes) -> str:
    """How mosquitto 2.x keeps a password: PBKDF2-HMAC-SHA512, `$7$iterations$salt$hash`."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
