"""What every message of the MQTT contract carries."""

from __future__ import annotations

import msgspec

from agent.contract.fields import Count, Short

PROTOCOL = 1


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What every message carries. `Stamper.encode` fills these in."""

    v: int = PROTOCOL
    boot: Short = ""
    seq: Count = 0
