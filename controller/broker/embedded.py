"""The embedded broker as a process of its own: its configuration file is named on stdin, and EOF there ends it."""

from __future__ import annotations

import logging
import os
import sys
import threading

from iotcore.iotcore import IotCoreBroker


def main() -> int:
    config = sys.stdin.buffer.readline().decode().rstrip("\n")
    # rumqttd wraps its routing in spans of level error: every packet would be logged.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    IotCoreBroker(config_path=config).run_forever()
    return 0


def _leave_with_parent() -> None:
    try:
        sys.stdin.buffer.read()
    finally:
        os._exit(0)
