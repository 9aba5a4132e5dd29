"""Reports for tests: one with everything in it, one with next to nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.contract.manifest import Acceptance, Limits, Parity
from agent.contract.tensors import TensorSpec
from optimizer.recipe import find, plain
from optimizer.report import (
    Artifact,
    Candidate,
    Cut,
    File,
    FloatModel,
    GateResult,
    Layer,
    Parities,
    PassTime,
    Pruned,
    Rejected,
    Report,
    Row,
    Split,
    TestUse,
)

FILE = File(file="x.tflite", digest="ab" * 32, size=31_208)
GATE = GateResult(
    passed=True,
    reasons=(
        "ok: loss of 0.0025 on 397 rows, margin 0.0100",
        "ok: agreement 0.9900 on parity, at least 0.9700",
        "ok: SQNR 29.1 dB, at least 15.0 dB",
    ),
    loss=0.0025,
    margin=0.01,
    bound_95=0.0091,
    strict=False,
    rows=397,
)
PARITIES = (
    Parities(where="parity", agreement=0.992, cosine=0.99981, sqnr_db=29.1, max_error=0.0412),
    Parities(where="validation", agreement=0.9899, cosine=0.99975, sqnr_db=28.4, max_error=0.0533),
)
VERSIONS = {"lepta": "0.1.0", "tensorflow": "2.21.0", "keras": "3.15.1"}


def artifact(profile: str = "x86-cpu", host: str = "x86_64, 2 CPUs, of this profile's class") -> Artifact:
    return Artifact(
        profile=profile,
        made="pruned to 25 %, int8",
        recipe="default",
        files={"model": FILE, "parity": FILE, "acceptance": FILE},
        inputs=(TensorSpec("image", "int8", (8, 8, 1)),),
        outputs=(TensorSpec("scores", "int8", (10,)),),
        operators=("CONV_2D", "FULLY_CONNECTED", "MEAN", "SOFTMAX"),
        bytes=31_208,
        bytes_before=373_288,
        parameters=23_301,
        parameters_before=93_322,
        macs=1_471_088,
        macs_before=5_917_312,
        accuracy_float=0.9924,
        accuracy_int8=0.9899,
        agreement=0.9899,
        sqnr_db=28.4,
        parities=PARITIES,
        float_operators=(),
        gate=GATE,
        latency_ms=0.0421,
        latency_runtime="ai-edge-litert 2.3.0, XNNPACK",
        latency_host=host,
        memory_mb=1.73,
        parity=Parity(0.97, 15.0),
        acceptance=Acceptance(0.97, 0.02),
        runtimes=("ai-edge-litert",),
        threads=1,
        limits=Limits(),
    )


def row(name: str, parameters: int, size: int, packed: int, accuracy: float, **more: Any) -> Row:
    macs = 5_917_312 if parameters > 50_000 else 1_471_088
    known = {"macs": macs, "bytes": size, "packed_bytes": packed, "accuracy_validation": accuracy, "zeros": 0.004}
    return Row(name=name, parameters=parameters, **{**known, "accuracy_test": accuracy - 0.001, **more})


def rows() -> tuple[Row, ...]:
    prune = "tfmot prune + PTQ"
    trained: dict[str, Any] = {"seeds": 3, "steps": 112, "epoch_s": 0.55, "train_s": 7.6, "latency_ms": 0.0421}
    return (
        row("float", 93_322, 376_004, 346_120, 0.9925, latency_ms=0.391, zeros=0.0),
        row("PTQ only", 93_322, 104_312, 88_400, 0.99, latency_ms=0.118, train_s=0.0),
        row(prune, 93_322, 104_312, 39_950, 0.9825, **{**trained, "latency_ms": 0.119}, spread=0.004, zeros=0.75),
        row("same size from scratch", 23_301, 31_208, 26_010, 0.9775, **trained, spread=0.006, note="labels alone"),
        row("Lepta, x86-cpu", 23_301, 31_208, 25_702, 0.99, **trained, spread=0.0012),
    )


def candidates(profile: str = "x86-cpu") -> tuple[Candidate, ...]:
    return (
        Candidate(
            profile=profile,
            parities=PARITIES,
            made="pruned to 12.5 %, int8",
            budget=0.125,
            passed=False,
            chosen=False,
            reasons=("loss of 0.0225, margin 0.0100",),
            parameters=11_650,
            macs=735_000,
            bytes=18_104,
            latency_ms=0.027,
            accuracy_validation=0.97,
            loss_validation=0.0225,
        ),
        Candidate(
            profile=profile,
            parities=PARITIES,
            made="pruned to 25 %, int8",
            budget=0.25,
            passed=True,
            chosen=True,
            reasons=(),
            parameters=23_301,
            macs=1_471_088,
            bytes=31_208,
            latency_ms=0.0421,
            accuracy_validation=0.99,
            loss_validation=0.0025,
        ),
        Candidate(
            profile=profile,
            parities=PARITIES,
            made="pruned to 50 %, int8",
            budget=0.5,
            passed=True,
            chosen=False,
            reasons=(),
            parameters=46_661,
            macs=2_958_000,
            bytes=56_300,
            latency_ms=0.066,
            accuracy_validation=0.9925,
            loss_validation=0.0,
        ),
        Candidate(
            profile=profile,
            made="pruned to 5 %",
            budget=0.05,
            passed=False,
            chosen=False,
            reasons=("the budget cannot be reached",),
        ),
    )


def layers() -> tuple[Layer, ...]:
    return (
        Layer(name="relu0", operator="CONV_2D", sqnr_db=38.2, max_error=0.021, bytes=288, macs=18_432),
        Layer(name="relu1", operator="CONV_2D", sqnr_db=33.7, max_error=0.043, bytes=9_216, macs=589_824),
        Layer(name="relu2", operator="CONV_2D", sqnr_db=31.0, max_error=0.062, bytes=9_216, macs=589_824),
        Layer(name="relu3", operator="CONV_2D", sqnr_db=30.2, max_error=0.081, bytes=4_608, macs=272_000),
        Layer(name="pool", operator="MEAN", sqnr_db=35.9, max_error=0.012, bytes=0, macs=0),
        Layer(
            name="scores",
            operator="FULLY_CONNECTED",
            sqnr_db=29.4,
            max_error=0.11,
            bytes=320,
            macs=320,
            float_kept=True,
        ),
        Layer(name="softmax", operator="SOFTMAX", sqnr_db=28.4, max_error=0.0533, bytes=0, macs=0),
    )


def pruned() -> tuple[Pruned, ...]:
    return (
        Pruned(
            budget=0.25,
            seed=0,
            parameters=23_301,
            macs=1_471_088,
            groups=(
                Cut(name="conv0", before=32, after=15),
                Cut(name="conv1", before=64, after=33),
                Cut(name="conv2, conv3 (added)", before=64, after=31),
            ),
            barriers=("resize: no rule for Resizing",),
            blocks=("block2_add",),
            accuracy_validation=0.9925,
        ),
    )


def rejected() -> tuple[Rejected, ...]:
    return (
        Rejected(
            profile="fpga-proxy",
            reasons=("operators GELU are not allowed by fpga-proxy; it allows CONV_2D, SOFTMAX",),
            gate=msgspec.structs.replace(
                GATE,
                passed=False,
                reasons=("no: loss of 0.0225 on 397 rows, margin 0.0100",),
                loss=0.0225,
                bound_95=0.0361,
                strict=True,
            ),
        ),
    )


def full() -> Report:
    other = "x86_64, 2 CPUs, not of this profile's class: shown, not judged"
    return Report(
        model="digits",
        version=3,
        source=FILE,
        source_kind="Keras 3",
        recipe="default",
        settings=plain(find("default")),
        seed=0,
        data="cd" * 32,
        splits=tuple(
            Split(name=n, rows=r, digest=d * 32, labelled=True)
            for n, r, d in (("train", 1000, "01"), ("validation", 400, "23"), ("test", 397, "45"))
        ),
        test_uses=(
            TestUse(what="the float model's accuracy", decided=False),
            TestUse(what="x86-cpu: pruned to 25 %, int8", decided=True),
        ),
        labels=tuple("0123456789"),
        preprocessing=None,
        float_model=FloatModel(
            parameters=93_322,
            macs=5_917_312,
            bytes=373_288,
            accuracy_validation=0.9925,
            accuracy_test=0.9924,
            accuracy_acceptance=0.9924,
        ),
        artifacts=(artifact(), artifact("rpi4", other)),
        rejected=rejected(),
        candidates=(*candidates(), *candidates("rpi4")),
        rows=rows(),
        pruned=pruned(),
        layers={"x86-cpu": layers(), "rpi4": layers()},
        passes=(
            PassTime(name="inspect", remembered=True, wall_s=0, peak_mb=0),
            PassTime(name="prune", remembered=False, wall_s=83.2, peak_mb=1210.4),
        ),
        host="x86_64, 2 CPUs",
        wall_s=102.4,
        peak_memory_mb=1210.4,
        versions=VERSIONS,
        notes=("seeds differ in the order of rows and in nothing else",),
    )


def bare() -> Report:
    """No labels, no test rows, nothing released, no other ways."""
    return Report(
        model="<b>height</b>",
        version=1,
        source=FILE,
        source_kind="TFLite",
        recipe="ptq",
        settings={},
        seed=0,
        data="cd" * 32,
        splits=(),
        test_uses=(),
        labels=(),
        preprocessing=None,
        float_model=FloatModel(
            parameters=10, macs=8, bytes=400, accuracy_validation=None, accuracy_test=None, accuracy_acceptance=None
        ),
        artifacts=(),
        rejected=(Rejected(profile="x86-cpu", reasons=("SQNR of 9.0 dB, at least 15.0 dB",)),),
        candidates=(),
        rows=(),
        pruned=(),
        layers={},
        passes=(),
        host="x86_64, 2 CPUs",
        wall_s=4.2,
        peak_memory_mb=310.0,
        versions=VERSIONS,
    )
