"""How a model is fine-tuned: settings only, so that a recipe is read without TensorFlow."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Loss = Literal["sparse_categorical_crossentropy", "binary_crossentropy", "mse"]


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to fine-tune. `alpha`: the teacher's share of the loss; `decay`: AdamW's (arXiv 1711.05101)."""

    epochs: Annotated[int, Meta(ge=0, le=10_000)] = 10
    batch: Annotated[int, Meta(ge=1)] = 64
    rate: Annotated[float, Meta(gt=0)] = 2e-3
    decay: Annotated[float, Meta(ge=0)] = 1e-4
    temperature: Annotated[float, Meta(gt=0)] = 4.0
    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.9
    patience: Annotated[int, Meta(ge=1)] = 5
    """Epochs without a better loss on the check rows after which it ends."""
    dropout: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """The share of the model's own dropout rates that is left: a small model with a teacher seldom needs any."""
    mix: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Rows are mixed with others by up to this share, and the teacher is asked about the mixture; 0 to 0.5."""
    seed: Annotated[int, Meta(ge=0)] = 0
    """Of the order of rows, of dropout and of mixing: the same seed gives the same weights on one machine."""
    loss: Loss | None = None
    """None: by what the model gives, softmax, sigmoid or values, and by whether the labels are classes."""
    l1: Annotated[float, Meta(ge=0)] = 0.0
    """Added to the loss: this times the sum of all absolute values in kernels."""
    l2: Annotated[float, Meta(ge=0)] = 0.0
    """Added to the loss: this times the sum of all squares in kernels."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    """Of sgd."""
    schedule: Literal["cosine", "constant", "linear", "step"] = "cosine"
    """How the rate falls: to 0 by a cosine (arXiv 1608.03983) or a line; to a tenth after 1/2 and after 3/4."""
    warmup: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """The share of all steps over which the rate rises from 0 first."""
    features: Annotated[float, Meta(ge=0)] = 0.0
    """Weight of teaching which rows are alike before the last layer (arXiv 1907.09682, which takes 3,000)."""
    steps: Annotated[int, Meta(ge=0)] = 0
    """Above 0: just so many steps in place of epochs, without an early end."""
    most_steps: Annotated[int, Meta(ge=0)] = 0
    """Above 0: no more steps than this in all epochs together, so that many rows take no longer than some."""

    def total_steps(self, rows: int) -> int:
        """How many steps training on so many rows takes, unless it ends early."""
        if self.steps > 0:
            return self.steps
        total = -(-rows // self.batch) * self.epochs
        return min(total, self.most_steps) if self.most_steps > 0 else total
