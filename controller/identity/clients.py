"""Users' programs at the broker: credentials of their own, good for asking and for the predictions granted."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from agent.contract.bindings import BindingError, check_own_topic
from controller import reads, writes
from controller.broker.config import client_password
from controller.errors import Conflict, NotFound, UserError
from controller.identity.enrolment import RESERVED
from controller.identity.gate import Gate
from controller.records import Client
from controller.store import Store

_PASSWORD_BYTES, _SALT_BYTES = 32, 12


class Clients:
    """Changes the store first, and then the broker."""

    def __init__(self, store: Store, gate: Gate, *, port: int, most: int) -> None:
        """`port`: where the broker takes them in; 0: nowhere."""
        self._store = store
        self._gate = gate
        self._port = port
        self._most = most

    async def add(
        self, name: str, predictions: Sequence[str], now: float, publishes: Sequence[str] = ()
    ) -> tuple[Client, str]:
        """A new client and its password, which is kept only as the broker's hash. Raises UserError, Conflict, Busy."""
        if not self._port:
            raise UserError(
                "users' programs have credentials of their own only at the broker of `lepta up --lan`",
                "start the controller with --lan; without it, `lepta sub` and `lepta pub` use the broker's one login",
            )
        if name in RESERVED:
            raise Conflict(f"the name {name!r} is the controller's own", "choose another")
        try:
            for topic in publishes:
                check_own_topic(topic)
        except BindingError as error:
            raise UserError(str(error)) from error
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        hashed = client_password(password, secrets.token_bytes(_SALT_BYTES))
        granted = {"predictions": tuple(dict.fromkeys(predictions)), "publishes": tuple(dict.fromkeys(publishes))}
        client = Client(name=name, password=hashed, created_at=now, **granted)
        await self._store.commit([writes.add_client(client, self._most)])
        self._gate.let_in(name)
        await self._gate.refresh()
        return client, password

    async def every(self) -> list[Client]:
        return await self._store.read(reads.every(Client))

    async def remove(self, name: str) -> Client:
        """Its password is void, and its connection ends."""
        client = await self._store.read(reads.find(Client, name))
        if client is None:
            raise NotFound(f"no client is called {name!r}", "lepta client ls")
        await self._store.commit([writes.remove(Client, name)])
        await self._gate.shut_out(name)
        return client
