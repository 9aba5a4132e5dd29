"""Who may say and hear what at the broker: every party x every topic x every way, against what the contract gives.

The broker is a real mosquitto, set up as `lepta up --lan` does it. A case is who did what with which topic; whether it
arrived is seen by a connection with every right and by the victims' own.
"""

from __future__ import annotations

import contextlib
import itertools
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from paho.mqtt.client import topic_matches_sub

from agent.contract import topics
from tests.benchmarks.devices.lan import Lan
from tests.benchmarks.devices.peers import Login, Peer, Refused
from tests.benchmarks.devices.rights import MODELS, Topic, Who, all_topics, allowed, wildcards
from tests.benchmarks.results import Figure

DEVICE, CLIENT = Who("device", "pi-a"), Who("client", "shop-a", (MODELS[0],))
VICTIMS = (Who("device", "pi-b"), Who("client", "shop-b", MODELS))
# Nobody's CA should ever sign the others; `lepta` is a name as good as any, and the controller's user name.
HOSTILE = ("+", "#", "a/b", "pi-b/#", "+/blobs", "", "$SYS", "lepta")
CONTROLLER_ID = "Lepta-controller"


class Case(NamedTuple):
    who: str
    action: str
    topic: str
    expected: bool
    seen: bool
    must: bool = True
    """Where it is allowed it has to work; otherwise it is only not to leak."""

    @property
    def leak(self) -> bool:
        return self.seen and not self.expected

    @property
    def broken(self) -> bool:
        return self.must and self.expected and not self.seen


def figures(folder: Path, quick: bool) -> list[Figure]:
    began = time.monotonic()
    cases = run(folder, HOSTILE[:3] if quick else HOSTILE)
    leaks = [case for case in cases if case.leak or case.broken]
    note = f"devices, clients, hostile names, strangers; {time.monotonic() - began:.0f} s" + "".join(
        f"; {case.who} {case.action} {case.topic}" for case in leaks[:3]
    )
    return [
        Figure("matrix_cases", len(cases), "", ">= 1000", len(cases) >= 1000, note, always=True),
        Figure("matrix_leaks", len(leaks), "", "0", not leaks, "read, written or taken over; or a right denied", True),
    ]


def run(folder: Path, hostile: Iterable[str] = HOSTILE, spoil: Callable[[Lan], None] = lambda _: None) -> list[Case]:
    """Every case, as it came out. `spoil` may do something to the broker once it runs."""
    lan = Lan(folder)
    for who in (CLIENT, VICTIMS[1]):
        lan.add_client(who.name, *who.granted)
    with lan.running(), Peer(lan.controller(CONTROLLER_ID)) as controller:
        spoil(lan)
        controller.subscribe("#", "$SYS/#", "$CONTROL/#")
        matrix = Matrix(lan, controller)
        for who, victim in zip((DEVICE, CLIENT), VICTIMS, strict=True):
            matrix.party(who, victim.name)
        for name in hostile:
            matrix.hostile_name(name)
        matrix.takeovers()
        matrix.strangers()
    return matrix.cases


class Matrix:
    """One broker and its controller; `cases` grows."""

    def __init__(self, lan: Lan, controller: Peer) -> None:
        self._lan = lan
        self._controller = controller
        self._topics = all_topics((DEVICE.name, VICTIMS[0].name), (CLIENT.name, VICTIMS[1].name))
        self._numbers = itertools.count(1)
        self.cases: list[Case] = []

    def party(self, who: Who, victim: str) -> None:
        """Everything that these credentials can try."""
        with Peer(self._login(who)) as peer:
            self._publish(who, peer)
            for filters in self._filters(who, victim):
                self._hear(who, peer, filters)
            self._retained(who, peer, victim)
        self._wills(who)

    def hostile_name(self, name: str) -> None:
        """A certificate of our CA for a name that it would never sign: no right of anybody's may come of it."""
        who = Who("device", name)
        try:
            with Peer(self._lan.device(name, "any")) as peer:
                self._publish(who, peer, must=False)
                self._hear(who, peer, ["#"], must=False)
        except Refused:
            self._add(who.name, "connect", "", False, False)

    def takeovers(self) -> None:
        """Under somebody else's client id: he must not notice."""
        ids = {"another device": VICTIMS[0].name, "a client": VICTIMS[1].name, "the controller": CONTROLLER_ID}
        with self._victims() as victims:
            for who, (whose, client_id) in itertools.product((DEVICE, CLIENT), ids.items()):
                login = self._login(who)._replace(client_id=client_id)
                # A device may also claim another's name where its certificate should speak.
                claim = login._replace(username=client_id) if who.kind == "device" else login
                with contextlib.suppress(Refused), Peer(claim):
                    self._settle()
                lost = any(victim.lost.is_set() for victim in (*victims, self._controller))
                self._add(who.name, f"take the client id of {whose}", client_id, False, lost)
            taken = self._lan.controller(VICTIMS[0].name)
            with Peer(taken):
                victims[0].lost.wait(10)
            self._add(
                "controller", "put a device out by its client id", taken.client_id, True, victims[0].lost.is_set()
            )

    def strangers(self) -> None:
        """Nobody comes in without what its listener asks for."""
        lan = self._lan
        device, client = lan.device("pi-c"), lan.client(CLIENT.name)
        lan.revoked.append(lan.serials["pi-c"])
        lan.admit()
        self._settle()
        logins = {
            "a revoked certificate": device,
            "a certificate of another CA": device._replace(tls=lan.certificate("pi-a", lan.stranger)),
            "the server's own certificate": device._replace(tls=self._servers_own()),
            "no certificate": device._replace(tls=lan.trust()),
            "no certificate and the controller's password": lan.controller("pi-c")._replace(
                port=device.port, tls=lan.trust()
            ),
            "a client's password at the devices' port": client._replace(port=device.port),
            "a wrong password": client._replace(password="wrong"),
            "no password": client._replace(username="", password=""),
            "a name that nobody has": client._replace(username="Nobody"),
            "the controller's name and password at the clients' port": lan.controller("x")._replace(
                port=client.port, tls=lan.trust()
            ),
            "a certificate at the clients' port": device._replace(port=client.port),
            "a client's password on loopback": client._replace(port=lan.broker.port, tls=None),
            "a device's name on loopback": Login(lan.broker.port, DEVICE.name, DEVICE.name, ""),
            "nothing on loopback": Login(lan.broker.port, "x"),
            "plain TCP at the devices' port": Login(device.port, "x"),
            "plain TCP at the clients' port": client._replace(tls=None),
        }
        for text, login in logins.items():
            came_in = False
            with contextlib.suppress(Refused), Peer(login):
                came_in = True
            self._add(text, "connect", "", False, came_in)

    # -- ways

    def _publish(self, who: Who, peer: Peer, *, must: bool = True) -> None:
        with self._victims() as victims:
            for retain, action in ((False, "publish"), (True, "publish retained")):
                marks = self._marks(self._topics)
                peer.publish([(topic.text, mark) for mark, topic in marks.items()], retain=retain)
                self._settle()
                heard = self._heard(victims)
                for mark, topic in marks.items():
                    expected = allowed(who, "write", topic)
                    self._add(who.name, action, topic.text, expected, mark in heard, must)
        self._clear()

    def _wills(self, who: Who) -> None:
        marks = self._marks(self._topics)
        with self._victims() as victims:
            for mark, topic in marks.items():
                # Refused at once where the broker looks at the will; the next one ends this session for certain.
                with contextlib.suppress(Refused):
                    peer = Peer(self._login(who)._replace(will=(topic.text, mark)))
                    peer.__enter__()
                    peer.vanish()
            with Peer(self._login(who)):
                self._settle()
            heard = self._heard(victims)
        for mark, topic in marks.items():
            self._add(who.name, "will", topic.text, allowed(who, "write", topic), mark in heard)

    def _filters(self, who: Who, victim: str) -> list[list[str]]:
        """What is subscribed at a time: each topic by its name, which tells by itself whose message came, and then
        each wildcard alone."""
        return [[topic.text for topic in self._topics], *([filter_] for filter_ in wildcards(who, victim))]

    def _hear(self, who: Who, peer: Peer, filters: list[str], *, must: bool = True) -> None:
        """The controller publishes on every topic."""
        marks = self._marks(self._topics)
        peer.subscribe(*filters)
        self._controller.publish([(topic.text, mark) for mark, topic in marks.items()])
        self._judge(who, peer, filters, marks, "subscribe", must=must)

    def _retained(self, who: Who, peer: Peer, victim: str) -> None:
        """What stood there before the subscription."""
        marks = self._marks(self._topics)
        self._controller.publish([(topic.text, mark) for mark, topic in marks.items()], retain=True)
        for filters in self._filters(who, victim):
            peer.subscribe(*filters)
            # The broker gives no retained messages to shared subscriptions.
            self._judge(who, peer, filters, marks, "read retained", must=not filters[0].startswith("$share"))
        self._clear()

    def _judge(
        self, who: Who, peer: Peer, filters: list[str], marks: dict[bytes, Topic], action: str, *, must: bool
    ) -> None:
        self._settle(peer, who)
        peer.unsubscribe(*filters)
        got = peer.take()
        seen = {body for _, body in got}
        for mark, topic in marks.items():
            matches = any(_matches(filter_, topic.text) for filter_ in filters)
            if mark in seen or matches:
                text = topic.text if len(filters) > 1 else f"{topic.text} by {filters[0]}"
                self._add(who.name, action, text, allowed(who, "read", topic), mark in seen, must and matches)
        # Nor is anything to come that the controller did not send: from the broker itself, or from somebody else.
        for text in {topic for topic, body in got if body not in marks and not body.startswith(b"mark-")}:
            self._add(who.name, action, text, False, True)

    # -- tools

    def _settle(self, peer: Peer | None = None, who: Who | None = None) -> None:
        """Returns when everything that was sent before has arrived, at `peer` or at the controller."""
        mark = self._mark()
        if peer is None or who is None or who.name in HOSTILE:
            self._controller.publish([("settle", mark)])
            self._controller.until(mark)
            if peer is not None:
                # It may have no topic of its own: the answer comes after what was sent to it before.
                peer.subscribe("settle")
            return
        own = topics.agent(who.name, "cmd") if who.kind == "device" else topics.client_answer(who.name)
        peer.subscribe(own)
        self._controller.publish([(own, mark)])
        peer.until(mark)
        peer.unsubscribe(own)

    @contextlib.contextmanager
    def _victims(self) -> Iterator[list[Peer]]:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(Peer(self._login(who))) for who in VICTIMS]
            for who, peer in zip(VICTIMS, peers, strict=True):
                peer.subscribe(*(t.text for t in self._topics if t.channel and allowed(who, "read", t)))
            self._settle()
            self._heard(peers)
            yield peers

    def _heard(self, victims: list[Peer]) -> set[bytes]:
        return {body for peer in (self._controller, *victims) for _, body in peer.take()}

    def _clear(self) -> None:
        self._controller.publish([(topic.text, b"") for topic in self._topics], retain=True)
        self._settle()

    def _login(self, who: Who) -> Login:
        return self._lan.device(who.name) if who.kind == "device" else self._lan.client(who.name)

    def _servers_own(self) -> ssl.SSLContext:
        context = self._lan.trust()
        context.load_cert_chain(self._lan.server.certificate, self._lan.server.key)
        return context

    def _marks(self, topics_: Iterable[Topic]) -> dict[bytes, Topic]:
        return {self._mark(): topic for topic in topics_}

    def _mark(self) -> bytes:
        return b"mark-%d" % next(self._numbers)

    def _add(self, who: str, action: str, topic: str, expected: bool, seen: bool, must: bool = True) -> None:
        self.cases.append(Case(who or "''", action, topic, expected, seen, must))


def _matches(filter_: str, topic: str) -> bool:
    """As MQTT has it: a shared filter matches as the filter in it, and no leading wildcard reaches `$` topics."""
    if filter_.startswith("$share/"):
        filter_ = filter_.split("/", 2)[2]
    if topic.startswith("$") and filter_[0] in "+#":
        return False
    return topic_matches_sub(filter_, topic)
