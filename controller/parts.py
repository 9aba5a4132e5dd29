"""Everything a running controller consists of, in one place for the routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.artifacts import Signer
from controller.broker import Broker
from controller.bus import Bus
from controller.catalog import Catalog
from controller.examples import Examples
from controller.fleet import Fleet
from controller.identity.api_keys import ApiKeys
from controller.identity.authority import ServerFiles
from controller.identity.gate import Gate
from controller.keys import Keys
from controller.on_demand import OnDemand
from controller.settings import Settings
from controller.store import Store
from firmware_profiles.profile import Profile


@dataclass
class Controller:
    settings: Settings
    url: str
    """For tools on this machine."""
    public_url: str
    """For other machines."""
    boot_id: str
    keys: Keys
    api_keys: ApiKeys
    store: Store
    catalog: Catalog
    broker: Broker
    bus: Bus
    fleet: Fleet
    signer: Signer
    examples: Examples
    gate: Gate
    on_demand: OnDemand
    profiles: dict[str, Profile]
    pictures: asyncio.Semaphore
    """Who unpacks pictures."""
    server: ServerFiles | None = None
    """What TLS is served with; None: plain HTTP."""
    on_certificate: list[Callable[[], None]] = field(default_factory=list)
    """Called when `server` holds a new certificate."""
    started_at: float = field(default_factory=time.time)
