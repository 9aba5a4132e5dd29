"""Inputs made ready for jobs: checked against the model, laid out once, shared by the jobs that read the same."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import msgspec

from agent.contract import children
from controller.errors import Internal, UserError
from controller.job_inputs import kinds
from controller.job_inputs.child import Order, Outcome
from controller.job_inputs.source import Layout, Source
from controller.job_inputs.wanted import Wanted

_LAYOUT = "layout.json"
_TAIL = 300


class Inputs:
    """Prepared inputs below `folder`. `limit`: bytes that one may take when it is laid out."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._busy: Counter[str] = Counter()

    async def open(self, path: Path, wanted: Wanted) -> Source:
        """The rows of an input whose name is its digest; raises UserError unless they fit the model."""
        folder = self._place(path, wanted)
        self._busy[folder.name] += 1
        try:
            layout = await asyncio.to_thread(_kept, folder)
            if layout is None:
                layout = await self._prepare(path, wanted, folder)
            return await asyncio.to_thread(Source, layout, path, folder)
        finally:
            self._busy[folder.name] -= 1
            self._busy += Counter()  # Forgets who is at 0.

    async def forget(self, keep: Collection[Path]) -> None:
        """Delete what no job reads. What is open stays readable."""
        for folder in self._folder.glob("*"):
            if folder not in keep and not self._busy[folder.name.split(".")[0]]:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _place(self, path: Path, wanted: Wanted) -> Path:
        told = msgspec.json.encode((path.name, wanted))
        return self._folder / hashlib.sha256(told).hexdigest()[:32]

    async def _prepare(self, path: Path, wanted: Wanted, folder: Path) -> Layout:
        making = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
        making.mkdir(parents=True)
        try:
            if await asyncio.to_thread(kinds.at_once, path):
                layout = await asyncio.to_thread(kinds.lay_out, path, wanted, making, self._limit)
            else:
                layout = await _in_a_child(Order(str(path), str(making), self._limit, wanted))
            await asyncio.to_thread(_keep, layout, making, folder)
            return layout
        finally:
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)


def _kept(folder: Path) -> Layout | None:
    try:
        return msgspec.json.decode((folder / _LAYOUT).read_bytes(), type=Layout)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _keep(layout: Layout, making: Path, folder: Path) -> None:
    (making / _LAYOUT).write_bytes(msgspec.json.encode(layout))
    if _kept(folder) is None:
        # A power cut may have left it half written.
        shutil.rmtree(folder, ignore_errors=True)
    try:
        making.rename(folder)
    except OSError:
        # Another request was faster with the same: both made the same files.
        if not (folder / _LAYOUT).is_file():
            raise


async def _in_a_child(order: Order) -> Layout:
    process = await asyncio.create_subprocess_exec(
        *children.command("controller.job_inputs.child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=children.environment(),
        start_new_session=True,
    )
    try:
        out, errors = await process.communicate(msgspec.json.encode(order))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        outcome = msgspec.json.decode(out, type=Outcome)
    except msgspec.DecodeError as error:
        told = errors.decode(errors="replace").strip()[-_TAIL:]
        raise Internal(f"the input could not be read, its reader ended with {process.returncode}: {told}") from error
    if outcome.layout is None:
        if outcome.who == "user":
            raise UserError(outcome.message, outcome.hint)
        raise Internal(outcome.message, outcome.hint)
    return outcome.layout
