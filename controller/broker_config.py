"""PURE: configuration files of the brokers that the controller starts itself."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from controller.settings import Limits

_ITERATIONS = 101
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


def mosquitto(listen: Listen, limits: Limits, folder: Path, user: str) -> str:
    """mosquitto.conf; `folder` takes its database, `user` is who runs it (as root it would become another user)."""
    return f"""user {user}
listener {listen.port} {listen.host}
allow_anonymous false
password_file {folder / "mosquitto.passwd"}
set_tcp_nodelay true
persistence true
persistence_location {folder}/
max_packet_size {limits.broker_payload_bytes}
max_connections {limits.broker_connections}
max_inflight_messages 200
max_queued_messages 10000
max_queued_bytes {64 * 1024 * 1024}
sys_interval 0
connection_messages false
log_dest stderr
log_type error
log_type warning
"""


def mosquitto_passwd(username: str, password: str, salt: bytes) -> str:
    """One line of a mosquitto 2.x password file: PBKDF2-HMAC-SHA512, `$7$iterations$salt$hash`."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"{username}:$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
