"""Which blobs mean what: generation, desired models, and per model the serving and previous version, in one file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.contract.manifest import FileRef
from agent.contract.messages import Binding, Desired, DesiredModel
from agent.disk import Disk


class PointerError(Exception):
    """The state file cannot be read."""


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """A version that passed its probe here."""

    wanted: DesiredModel
    files: dict[str, FileRef]
    accuracy: float | None = None
    """Reached on the acceptance set of digest `files["acceptance"]`, on this device."""
    watched: bool = True
    """False between the switch and the commit."""
    steady: bool = True
    """Has it served for long without the agent going down?"""
    starts: int = 0
    """Of the agent, that ended early, since this version serves and until it is steady."""
    memory_mb: float = 0.0
    """What its worker took when it was probed here; 0 where that is not known."""


class ModelPointers(msgspec.Struct, frozen=True, kw_only=True):
    serving: Pointer | None = None
    previous: Pointer | None = None
    refused: DesiredModel | None = None
    """Not tried again in this generation; one that was rolled back, not until a generation names it anew."""
    refused_state: str = ""
    refused_reason: str = ""
    candidate: DesiredModel | None = None
    """Its worker was started; if that is found at a start, the agent went down with it."""
    tries: int = 0
    """Of this candidate, in a row."""
    refused_cause: str = ""

    def served(self, wanted: DesiredModel) -> bool:
        """Is it what serves here, or served before that?"""
        return any(p is not None and p.wanted.manifest == wanted.manifest for p in (self.serving, self.previous))


class Pointers(msgspec.Struct, frozen=True, kw_only=True):
    generation: int = 0
    desired: tuple[DesiredModel, ...] = ()
    drain: bool = False
    minimum_sequence: dict[str, int] = {}
    labels: dict[str, str] = {}
    """The operator's."""
    mirrors: tuple[str, ...] = ()
    """Of which the controller told."""
    models: dict[str, ModelPointers] = {}
    bindings: tuple[Binding, ...] = ()

    def of(self, model: str) -> ModelPointers:
        return self.models.get(model, ModelPointers())

    def with_model(self, model: str, **changes: object) -> Pointers:
        """The same with some pointers of one model replaced."""
        changed = msgspec.structs.replace(self.of(model), **changes)
        return msgspec.structs.replace(self, models={**self.models, model: changed})

    def without(self, model: str) -> Pointers:
        models = {name: pointers for name, pointers in self.models.items() if name != model}
        return msgspec.structs.replace(self, models=models)

    def accepting(self, desired: Desired) -> Pointers:
        """The same in a new generation. What was refused may be tried again; what was rolled back only if this
        generation names it and the last one did not: nobody asks for it again by changing something else."""
        still = set(self.desired) & set(desired.models)
        models = {
            name: model
            if model.refused_state == "failed" and model.refused in still
            else msgspec.structs.replace(model, refused=None, refused_state="", refused_reason="", refused_cause="")
            for name, model in self.models.items()
        }
        return msgspec.structs.replace(
            self,
            generation=desired.generation,
            desired=desired.models,
            drain=desired.drain,
            minimum_sequence=desired.minimum_sequence,
            labels=desired.labels,
            mirrors=desired.mirrors,
            bindings=desired.bindings,
            models=models,
        )

    def pinned(self) -> set[str]:
        """Digests that must stay on disk."""
        digests = {digest for wanted in self.desired for digest in (wanted.manifest, wanted.artifact)}
        for model in self.models.values():
            for pointer in (model.serving, model.previous):
                if pointer is not None:
                    digests.add(pointer.wanted.manifest)
                    digests.update(file.digest for file in pointer.files.values())
        return digests


class PointerFile:
    """`state.json`: replaced atomically, so any crash leaves the old or the new state."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._path = folder / "state.json"
        self._disk = disk

    def load(self) -> Pointers:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Pointers)
        except FileNotFoundError:
            return Pointers()
        except (msgspec.DecodeError, ValueError) as error:
            raise PointerError(
                f"{self._path} cannot be read ({error}); move it away and the agent asks its controller again"
            ) from error

    def save(self, pointers: Pointers) -> None:
        """Raises OSError if the disk does not take it; the old state then stands."""
        self._disk.save(self._path, msgspec.json.encode(pointers))
