"""What the REST API answers about policies, preparations and stored answers."""

from __future__ import annotations

from typing import Literal

from agent.contract.tensors import Tensor
from controller.policy import Override, Policy
from controller.replies import Reply


class ModelPolicy(Reply, frozen=True, kw_only=True):
    """`override`: what the model says itself; `policy`: what holds for it."""

    model: str
    override: Override
    policy: Policy


class Preparation(Reply, frozen=True, kw_only=True):
    """How far a model is from answering. `idle`: the next request begins what is needed; `failed`: no request will."""

    model: str
    state: Literal["ready", "preparing", "idle", "failed"]
    version: int = 0
    step: str = ""
    """`rollout`, `run` or `installation`."""
    follow: str = ""
    """The resource of the rollout or run that is waited for."""
    error: str = ""
    hint: str = ""


class StoredAnswer(Reply, frozen=True, kw_only=True):
    """The tensors, as bytes (base64 in JSON) with name, dtype and shape, come with one answer and not with lists."""

    id: str
    trace_id: str = ""
    model: str
    version: int = 0
    artifact: str = ""
    device: str = ""
    runtime: str = ""
    state: str
    error: str = ""
    received_at: float = 0.0
    ms: float = 0.0
    size: int = 0
    outputs: tuple[Tensor, ...] = ()
    inputs: tuple[Tensor, ...] | None = None


class AnswerPage(Reply, frozen=True, kw_only=True):
    """Newest first. `next` asks for the page behind this one."""

    answers: tuple[StoredAnswer, ...] = ()
    next: str | None = None
    dropped: int = 0
    """That were to be stored since the controller started, and found no room on their way to the disk."""
