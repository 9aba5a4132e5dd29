"""A mosquitto whose owner says which topics may be read: its plugin for that answers subscriptions with a refusal."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from agent.link import Broker
from controller.broker import find_mosquitto
from tests.streams import Program
from tests.waiting import until

_PLUGIN, _ROLE, _ITERATIONS = "mosquitto_dynamic_security.so", "everybody", 101
_CONTROL = "$CONTROL/dynamic-security/v1"


class StrictBroker:
    """One login, which may do everything but read `refuses`. Use as a context manager."""

    def __init__(self, folder: Path, refuses: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self.broker = Broker("127.0.0.1", port, "lepta", secrets.token_hex(8))
        self.url = f"mqtt://{self.broker.username}:{self.broker.password}@127.0.0.1:{port}"
        self._refuses = refuses
        rules, self._config = folder / "rules.json", folder / "strict.conf"
        rules.write_text(json.dumps(self._rules()))
        [plugin] = Path("/usr/lib").glob(f"*/{_PLUGIN}")
        listen = (f"listener {port} 127.0.0.1", "allow_anonymous false", "log_type none")
        lines = (*listen, f"plugin {plugin}", f"plugin_opt_config_file {rules}")
        self._config.write_text("\n".join((*lines, "user root", "max_packet_size 600000", "")))

    def allow(self) -> None:
        """From now on everything may be read."""
        change = {"command": "removeRoleACL", "rolename": _ROLE, "acltype": "subscribePattern", "topic": self._refuses}
        with Program(self.broker) as owner:
            owner.publish_json(_CONTROL, {"commands": [change]}, qos=1)

    def _rules(self) -> dict[str, Any]:
        salt = secrets.token_bytes(12)
        hashed = hashlib.pbkdf2_hmac("sha512", self.broker.password.encode(), salt, _ITERATIONS)
        login = {
            "username": self.broker.username,
            "password": base64.b64encode(hashed).decode(),
            "salt": base64.b64encode(salt).decode(),
            "iterations": _ITERATIONS,
            "roles": [{"rolename": _ROLE}],
        }
        rules = [
            {"acltype": "subscribePattern", "topic": self._refuses, "priority": 9, "allow": False},
            {"acltype": "publishClientSend", "topic": _CONTROL, "priority": 0, "allow": True},
        ]
        kinds = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
        return {
            "defaultACLAccess": dict.fromkeys(kinds, True),
            "clients": [login],
            "groups": [],
            "roles": [{"rolename": _ROLE, "acls": rules}],
        }

    def __enter__(self) -> StrictBroker:
        program = find_mosquitto()
        assert program is not None
        self._process = subprocess.Popen([program, "-c", str(self._config)])
        assert until(self._accepts)
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()

    def _accepts(self) -> bool:
        try:
            socket.create_connection((self.broker.host, self.broker.port), 0.2).close()
        except OSError:
            return False
        return True
