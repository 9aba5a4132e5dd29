"""MQTT for people: subscribe and publish with paho, and payloads made readable."""

from __future__ import annotations

import base64
import queue
import socket
import ssl
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.contract import wire
from controller.client.rest import ApiError
from controller.replies import BrokerAccess

CONNECT_S = 10.0
# Messages that wait to be printed; more are dropped by the broker's side of the connection, not kept here.
WAITING = 10_000


def subscribe(access: BrokerAccess, topic: str) -> Iterator[tuple[str, bytes]]:
    """(topic, payload) of every message that fits `topic`. Raises ApiError if the broker refuses or goes away."""
    news: queue.Queue[tuple[str, bytes] | ApiError | None] = queue.Queue(WAITING)
    client = _client(access)

    def connected(_c: mqtt.Client, _u: Any, _f: mqtt.ConnectFlags, code: ReasonCode, _p: Properties | None) -> None:
        if code.is_failure:
            news.put(ApiError(f"the broker refused the login: {code}", who="network"))
        else:
            client.subscribe(topic, qos=1)

    def subscribed(_c: mqtt.Client, _u: Any, _mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        news.put(ApiError(f"the broker refused {topic!r}: {refused[0]}", who="user") if refused else None)

    client.on_connect, client.on_subscribe = connected, subscribed
    client.on_message = lambda _c, _u, message: news.put((message.topic, bytes(message.payload)))
    client.on_disconnect = lambda _c, _u, _f, code, _p: news.put(ApiError(f"the broker hung up: {code}", who="network"))
    _connect(client, access, topic)
    try:
        while True:
            item = news.get()
            if isinstance(item, ApiError):
                raise item
            if item is not None:
                yield item
    finally:
        client.on_disconnect = None
        client.disconnect()
        client.loop_stop()


def publish(access: BrokerAccess, topic: str, payload: bytes) -> None:
    """Publish once with QoS 1 and wait for the broker's word. Raises ApiError."""
    client = _client(access)
    refused: list[str] = []
    client.on_connect = lambda _c, _u, _f, code, _p: refused.append(str(code)) if code.is_failure else None
    _connect(client, access, topic)
    try:
        info = client.publish(topic, payload, qos=1)
        info.wait_for_publish(CONNECT_S)
        if not info.is_published():
            raise ApiError(f"the broker did not take the message: {'; '.join(refused) or 'no answer'}", who="network")
    except (ValueError, RuntimeError) as error:
        raise ApiError(f"{topic!r} cannot be published: {error}", who="user") from error
    finally:
        client.disconnect()
        client.loop_stop()


def readable(payload: bytes) -> str:
    """A payload as one line: JSON; signed envelopes opened, not verified; MessagePack as JSON; other bytes counted."""
    for decode in (msgspec.json.decode, msgspec.msgpack.decode):
        try:
            value = decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError):
            continue
        if isinstance(value, dict | list):
            return msgspec.json.encode(_plain(_opened(value))).decode()
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return f"<{len(payload)} bytes>"
    return text if text.isprintable() else f"<{len(payload)} bytes>"


def _opened(value: Any) -> Any:
    if isinstance(value, dict) and {"payload", "payloadType", "signatures"} <= value.keys():
        try:
            return {"signed": msgspec.json.decode(base64.b64decode(value["payload"]))}
        except (msgspec.DecodeError, ValueError, TypeError):
            return value
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _client(access: BrokerAccess) -> mqtt.Client:
    # Capital: no device's and no client's name begins with one, so none can be put out by this.
    client_id = f"Lepta-cli-{uuid.uuid4().hex[:12]}"
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
    if access.username:
        client.username_pw_set(access.username, access.password)
    if access.tls:
        client.tls_set_context(ssl.create_default_context())
    client.on_socket_open = _no_delay
    return client


def _no_delay(_client: mqtt.Client, _userdata: Any, sock: object) -> None:
    if isinstance(sock, socket.socket):
        wire.no_delay(sock)


def _connect(client: mqtt.Client, access: BrokerAccess, topic: str) -> None:
    where = f"{access.host}:{access.port}"
    if not topic or "\x00" in topic:
        raise ApiError("a topic has at least one character, and no NUL", who="user")
    client.connect_timeout = CONNECT_S
    try:
        code = client.connect(access.host, access.port, keepalive=30)
    except (OSError, ValueError) as error:
        raise ApiError(
            f"the broker at {where} cannot be reached: {error}", "is the controller running?", who="network"
        ) from error
    if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
        raise ApiError(f"the broker at {where} cannot be reached: {mqtt.error_string(code)}", who="network")
    client.loop_start()
