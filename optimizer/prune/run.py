"""Structured pruning in rounds: score, measure, choose, cut, fine-tune by the teacher, until the budget is met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from optimizer.calling import call
from optimizer.data import Array
from optimizer.distill import Tuned, teach, tune
from optimizer.errors import RefusedError
from optimizer.macs import Size
from optimizer.objective import Goals, Taught, accuracy_of, by_outputs, guess, judge_of, objective_of
from optimizer.prune.blocks import Block, spare, without
from optimizer.prune.budget import Ratios, choose
from optimizer.prune.coupling import Barrier, Coupling, couple
from optimizer.prune.importance import by_loss, by_scales, by_weights
from optimizer.prune.ledger import size_of
from optimizer.prune.select import Scores, select
from optimizer.prune.sensitivity import measure
from optimizer.prune.settings import Pruning
from optimizer.prune.surgery import cut
from optimizer.training_rows import enough
from optimizer.tuning import Loss, Tuning

Tell = Callable[[float, str], None]


class Round(msgspec.Struct, frozen=True):
    """What one round did; `ratios` of the channels that its model had."""

    ratios: Ratios
    size: Size
    tuned: Tuned


class Report(msgspec.Struct, frozen=True):
    """Sizes before and after, groups of the source, where nothing may be cut.

    `groups`: name -> channels, free ones, those that stayed. `accuracy`: on check rows, of the teacher; None where they
    have no classes.
    """

    before: Size
    after: Size
    groups: dict[str, tuple[int, int, int]]
    barriers: tuple[Barrier, ...]
    blocks: tuple[str, ...]
    """Residual branches that went as a whole."""
    rounds: tuple[Round, ...]
    accuracy: float | None = None


class Rows(msgspec.Struct, frozen=True):
    """Inputs (rows, ...) by the model's inputs, and labels or None."""

    inputs: tuple[Array, ...]
    labels: Array | None = None


def prune(
    teacher: Any, train: Rows | Taught, check: Rows | Taught, settings: Pruning, tell: Tell
) -> tuple[Any, Report]:
    """A smaller model taught by `teacher`, which stays as it is. With a budget of 1 an equal one, bit by bit.

    Raises RefusedError for a model without a graph, BudgetError for a budget out of reach.
    """
    if not 0 < settings.budget <= 1:
        raise RefusedError(f"a budget of {settings.budget} is not a share between 0 and 1")
    goal = _goal(teacher, check, settings)
    judged = Taught(check.inputs, check.labels, teach(teacher, check.inputs, goal))
    coupling = couple(teacher)
    before = size_of(coupling, everything := coupling.everything())
    gone = _spare_blocks(teacher, judged, goal, settings) if settings.blocks > 0 else []
    student, rounds = cut(teacher, coupling, everything), tuple[Round, ...]()
    if settings.budget < 1 or gone:
        rows = enough(Taught(train.inputs, train.labels, None), *courses(settings))
        rows = rows._replace(teacher=teach(teacher, rows.inputs, goal))
        student, rounds = _rounds(
            teacher, without(teacher, gone) if gone else teacher, rows, judged, goal, settings, tell
        )
    size = rounds[-1].size if rounds else before
    left = {group.name: len(group.classes) for group in couple(student).groups}
    groups = {
        group.name: (len(group.classes), int(group.free.sum()), left.get(group.name, 0)) for group in coupling.groups
    }
    accuracy = accuracy_of(judged.teacher, judged.labels, goal)
    names = tuple(block.name for block in gone)
    return student, Report(before, size, groups, coupling.barriers, names, rounds, accuracy)


def _rounds(
    teacher: Any, student: Any, rows: Taught, judged: Taught, goal: Goals, settings: Pruning, tell: Tell
) -> tuple[Any, tuple[Round, ...]]:
    """Cut and tune, time and again; shares are of what the teacher has."""
    whole = couple(teacher)
    before = _of(size_of(whole, whole.everything()), settings.of)
    rounds: list[Round] = []
    for at, share in enumerate(shares(settings.budget, settings.rounds)):
        say = _part(tell, at, settings.rounds)
        student, ratios = _cut(student, rows, judged, goal, settings, int(before * share), say)
        tuned = tune(student, rows, judged, goal, courses(settings)[at], _span(say, 0.3, 1.0), teacher)
        now = couple(student)
        rounds.append(Round(ratios, size_of(now, now.everything()), tuned))
    return student, tuple(rounds)


def courses(settings: Pruning) -> list[Tuning]:
    """How it is fine-tuned, round by round."""
    return [settings.between] * (settings.rounds - 1) + [settings.after]


def shares(budget: float, rounds: int) -> list[float]:
    """What stays after every round: every round takes the same share of what is left."""
    return [budget ** ((at + 1) / rounds) for at in range(rounds)]


def score(model: Any, coupling: Coupling, rows: Taught, goal: Goals, settings: Pruning) -> Scores:
    """The importance of every class of channels."""
    if settings.importance == "weights":
        return by_weights(coupling)
    if settings.importance == "scales":
        return by_scales(coupling)
    labelled = _labelled(rows, goal)
    chosen = np.random.default_rng(settings.after.seed).permutation(rows.number)[: settings.rows]
    size = settings.after.batch
    parts = [labelled.taken(chosen[at : at + size]) for at in range(0, len(chosen), size)]
    objective = objective_of(parts[0], goal, settings.after)
    return by_loss(
        coupling, lambda inputs: call(model, inputs, False), [(part.inputs, part) for part in parts], objective
    )


def _labelled(rows: Taught, goal: Goals) -> Taught:
    """By labels alone: a teacher has no gradient towards its own answers. Without labels, by what it would say."""
    if rows.labels is None and rows.teacher is not None:
        pairs = zip(by_outputs(rows.teacher), by_outputs(goal), strict=True)
        surest: Any = tuple(_surest(logits, aim.loss) for logits, aim in pairs)
        rows = rows._replace(labels=surest if isinstance(rows.teacher, tuple) else surest[0])
    return rows._replace(teacher=None)


def _surest(logits: Array, loss: Loss) -> Array:
    if loss == "sparse_categorical_crossentropy":
        return np.asarray(logits.argmax(-1))
    return (logits > 0).astype(np.float32) if loss == "binary_crossentropy" else np.zeros_like(logits)


def _cut(
    student: Any, rows: Taught, judged: Taught, goal: Goals, settings: Pruning, budget: int, tell: Tell
) -> tuple[Any, Ratios]:
    coupling = couple(student)
    scores = score(student, coupling, rows, goal, settings)
    few = judged.taken(np.arange(min(judged.number, settings.rows)))
    loss = judge_of(student, few, objective_of(few, goal, settings.after))
    curves = measure(coupling, scores, loss, settings.ratios, _span(tell, 0.0, 0.3), settings.least)

    def cost(ratios: Ratios) -> float:
        return _of(size_of(coupling, select(coupling, scores, ratios, settings.least)), settings.of)

    ratios = choose(curves, cost, budget)
    return cut(student, coupling, select(coupling, scores, ratios, settings.least)), ratios


def _spare_blocks(teacher: Any, judged: Taught, goal: Goals, settings: Pruning) -> list[Block]:
    few = judged.taken(np.arange(min(judged.number, settings.rows)))
    objective = objective_of(few, goal, settings.after)
    return spare(teacher, lambda model: judge_of(model, few, objective)(), settings.blocks)


def _goal(teacher: Any, check: Rows | Taught, settings: Pruning) -> Goals:
    if settings.between.loss not in (None, settings.after.loss):
        raise RefusedError("one loss goes for the whole of pruning; give it in `after`")
    goal: Goals = guess(teacher, check.inputs, check.labels, settings.after)
    return goal


def _of(size: Size, what: str) -> int:
    return size.parameters if what == "parameters" else size.macs


def _span(tell: Tell, start: float, end: float) -> Tell:
    return lambda done, detail: tell(start + (end - start) * done, detail)


def _part(tell: Tell, at: int, parts: int) -> Tell:
    return lambda done, detail: tell((at + done) / parts, f"round {at + 1} of {parts}: {detail}")
