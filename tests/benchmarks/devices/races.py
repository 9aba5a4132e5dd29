"""Devices race for a claim that is good for one: exactly one may join, over the real API of a real controller."""

from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from agent.contract.signing import PrivateKey
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.program import PATIENCE_S, ProgramError
from tests.benchmarks.results import Figure
from tests.joining import application

RACERS = 6
WON, LOST = 201, 403


def figures(folder: Path, quick: bool) -> list[Figure]:
    races = 10 if quick else 100
    with Fleet(folder) as fleet, ThreadPoolExecutor(RACERS) as threads:
        winners = [_race(fleet, threads, number) for number in range(races)]
        enrolled = len(fleet.client.devices())
    one = sum(count == 1 for count in winners)
    other = races - one + abs(enrolled - sum(winners))
    note = f"{RACERS} devices each, all at once, one claim for one device"
    return [
        Figure("races", races, "", note=note),
        Figure("race_one_winner", one, "", str(races), one == races, "races that exactly one device won", always=True),
        Figure("race_double", other, "", "0", other == 0, "races that nobody or several won", always=True),
    ]


def _race(fleet: Fleet, threads: ThreadPoolExecutor, number: int) -> int:
    """How many joined. In every second race all ask for the same name, and may be given another."""
    token = fleet.client.claim().token
    same = number % 2 == 1
    bodies = [
        json.dumps(
            application(token, PrivateKey.generate(), f"race-{number}" if same else f"race-{number}-{n}", derived=same)
        ).encode()
        for n in range(RACERS)
    ]
    start = threading.Barrier(RACERS)
    told = list(threads.map(lambda body: _ask(fleet.client.place.url, body, start), bodies))
    if not set(told) <= {WON, LOST}:
        raise ProgramError(f"race {number}: answers {told}, neither {WON} nor {LOST}")
    return told.count(WON)


def _ask(url: str, body: bytes, start: threading.Barrier) -> int:
    """Connect first, and ask when everybody else is connected too."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    try:
        connection.connect()
        start.wait(PATIENCE_S)
        connection.request("POST", "/api/v1/enroll", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
