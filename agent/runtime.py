"""The interpreter inside a worker: LiteRT, or tflite-runtime where LiteRT has no wheel, behind one face.

Real numbers in and out: `predict` quantizes by the artifact's own scales, invokes row by row and dequantizes.
Row by row because a resized batch gains nothing on int8 graphs (measured: +-10 %) and costs a new allocation.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from agent.contract.dequantize import real
from agent.contract.tensors import TensorSpec

Array = npt.NDArray[Any]

# Family (also the distribution's name) -> module of its Interpreter.
_MODULES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
FAMILIES = tuple(_MODULES)
"""Best first."""
_DELEGATE = "DELEGATE"


class RuntimeUnavailable(RuntimeError):
    """None of the interpreters that an artifact may run on is installed here."""


class ModelError(ValueError):
    """A model that cannot be loaded or run (`who` is "device"), or inputs that do not fit it (`who` is "user")."""

    def __init__(self, message: str, who: Literal["user", "device"] = "device") -> None:
        super().__init__(message)
        self.who: Literal["user", "device"] = who


class Model(Protocol):
    """A loaded artifact. One thread at a time."""

    family: str
    """"ai-edge-litert", "tflite-runtime" or "simulated": answers of one family are equal bit by bit."""
    runtime: str
    """For people, such as "ai-edge-litert 2.3.0, XNNPACK"."""
    delegated: bool
    """Whether a delegate (XNNPACK) took over at least a part of the graph."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    """Builtin operators of the graph by name, sorted, each once."""

    def invoke(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute in stored dtypes. Every array has shape (rows, *spec.shape); any number of rows."""


class _Port(NamedTuple):
    """Where a named tensor sits in the interpreter."""

    spec: TensorSpec
    at: int


@cache
def installed() -> tuple[str, ...]:
    """The interpreters that can be imported here, best first. Imports none of them."""
    return tuple(family for family, module in _MODULES.items() if importlib.util.find_spec(module.split(".")[0]))


def preload(runtimes: Sequence[str]) -> str:
    """Import the first installed of `runtimes` and return its family; raise RuntimeUnavailable if there is none."""
    family = next((family for family in runtimes if family in installed()), None)
    if family is None:
        here = ", ".join(installed()) or "none"
        raise RuntimeUnavailable(
            f"this device has none of the runtimes {', '.join(runtimes)} (installed: {here}); "
            "install one of them, or choose another with --runtime"
        )
    importlib.import_module(_MODULES[family])
    return family


def load(content: bytes, *, runtimes: Sequence[str], threads: int = 1) -> Model:
    """Build an interpreter over verified bytes, on the first installed of `runtimes`.

    Raises RuntimeUnavailable, or ModelError for bytes that are no model or need an operator that is not there.
    """
    family = preload(runtimes)
    interpreter_class = importlib.import_module(_MODULES[family]).Interpreter
    try:
        interpreter = interpreter_class(model_content=content, num_threads=threads)
        operators = {op["op_name"] for op in interpreter._get_ops_details()}
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{family} cannot load this model: {_first_line(error)}") from error
    return _Interpreted(interpreter, family, operators)


def predict(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Real numbers in, real numbers out (float32, shapes (rows, *spec.shape)).

    An input that already has the model's stored dtype passes as it is; anything else is quantized by the model's
    scale. Raises ModelError with `who="user"` for wrong names, shapes or dtypes.
    """
    return reals(model, compute(model, inputs))


def compute(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The same, with outputs as the model stores them."""
    return model.invoke({spec.name: stored(spec, inputs[spec.name]) for spec in _checked(model, inputs)})


def reals(model: Model, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """What `compute` gave as real numbers."""
    return {spec.name: real(spec, outputs[spec.name]) for spec in model.outputs}


class Slowed:
    """A model on a slower device: the same answers, `extra_ms_per_row` later. Says that it is simulated."""

    def __init__(self, model: Model, extra_ms_per_row: float) -> None:
        self._model = model
        self._extra_s = extra_ms_per_row / 1000
        self.family = model.family
        self.runtime = f"{model.runtime}, slowed by {extra_ms_per_row:g} ms a row (simulated)"
        self.delegated = model.delegated
        self.inputs, self.outputs, self.operators = model.inputs, model.outputs, model.operators

    def invoke(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows = len(next(iter(inputs.values())))
        outputs = self._model.invoke(inputs)
        time.sleep(rows * self._extra_s)
        return outputs


class _Interpreted:
    """Either interpreter: their Python faces are the same."""

    def __init__(self, interpreter: Any, family: str, operators: set[str]) -> None:
        self._interpreter = interpreter
        names = _signature(interpreter)
        inputs = [_port(detail, names) for detail in interpreter.get_input_details()]
        outputs = [_port(detail, names) for detail in interpreter.get_output_details()]
        self.inputs = tuple(port.spec for port in inputs)
        self.outputs = tuple(port.spec for port in outputs)
        self._in = [(port.spec.name, port.at) for port in inputs]
        self._out = [(port.spec.name, port.at) for port in outputs]
        self.operators = tuple(sorted(operators - {_DELEGATE}))
        self.family = family
        self.delegated = any(op["op_name"] == _DELEGATE for op in interpreter._get_ops_details())
        # Not importlib.metadata: parsing that in a worker copies 2 MB of the pages it shares with its parent.
        release = getattr(importlib.import_module(_MODULES[family].partition(".")[0]), "__version__", "")
        self.runtime = f"{family} {release}, {'XNNPACK' if self.delegated else 'no delegate'}"

    def invoke(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows = len(inputs[self.inputs[0].name])
        try:
            if rows == 1:  # As most requests have: what goes round the interpreter would cost as much as a small model.
                return self._row(inputs)
            results = {spec.name: np.empty((rows, *spec.shape), spec.dtype) for spec in self.outputs}
            self._rows(inputs, results)
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self.runtime} failed on this input: {_first_line(error)}") from error
        return results

    def _rows(self, inputs: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        """Row by row through views of the interpreter's own tensors, which `set_tensor` and `get_tensor` are slower
        than. Taken anew each time: the interpreter runs only while there are none."""
        interpreter = self._interpreter
        sources = [(interpreter.tensor(at), inputs[name]) for name, at in self._in]
        targets = [(interpreter.tensor(at), results[name]) for name, at in self._out]
        for row in range(len(inputs[self.inputs[0].name])):
            for source, array in sources:
                source()[0] = array[row]
            interpreter.invoke()
            for target, result in targets:
                result[row] = target()[0]

    def _row(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        interpreter = self._interpreter
        for name, at in self._in:
            interpreter.set_tensor(at, inputs[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(at) for name, at in self._out}


def _signature(interpreter: Any) -> dict[int, str]:
    """Clean tensor names by index, if the model has exactly one signature."""
    signatures = interpreter._get_full_signature_list()
    if len(signatures) != 1:
        return {}
    (only,) = signatures.values()
    return {index: name for side in ("inputs", "outputs") for name, index in only[side].items()}


def _port(detail: Mapping[str, Any], names: Mapping[int, str]) -> _Port:
    shape = tuple(int(size) for size in detail["shape"])
    name = names.get(detail["index"], detail["name"])
    if not shape or shape[0] != 1:
        raise ModelError(f"tensor {name!r} has shape {list(shape)}; the first axis must be rows, of size 1 in the file")
    scale, zero_point = detail["quantization"]
    quantized = (float(scale), int(zero_point)) if scale else (None, None)
    return _Port(TensorSpec(name, np.dtype(detail["dtype"]).name, shape[1:], *quantized), int(detail["index"]))


def _checked(model: Model, inputs: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    """The model's inputs, once names, shapes and rows of `inputs` fit them."""
    specs = model.inputs
    if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
        wanted = {spec.name for spec in specs}
        raise ModelError(f"inputs are {_listed(inputs)}; this model wants {_listed(wanted)}", "user")
    for spec in specs:
        shape = inputs[spec.name].shape
        if not shape or shape[1:] != spec.shape:
            want = ", ".join(map(str, ("rows", *spec.shape)))
            raise ModelError(f"input {spec.name!r} has shape {list(shape)}; this model wants [{want}]", "user")
    if len(specs) > 1 and len({len(array) for array in inputs.values()}) > 1:
        counts = sorted({len(array) for array in inputs.values()})
        raise ModelError(f"inputs disagree on the number of rows: {counts}", "user")
    return specs


def stored(spec: TensorSpec, array: Array) -> Array:
    """Quantize real numbers as the model stores them: round(x / scale) + zero point, saturated."""
    if array.dtype == spec.dtype:
        return array
    if array.dtype.kind not in "fiub":
        raise ModelError(f"input {spec.name!r} has dtype {array.dtype}; numbers are wanted, best float32", "user")
    if spec.scale is None or spec.zero_point is None:
        return array.astype(spec.dtype)
    numbers = array.astype(np.float32, copy=False)
    if b"\1" in np.isnan(numbers).tobytes():  # any() takes longer, and this is one row of many.
        raise ModelError(f"input {spec.name!r} holds values that are not numbers (NaN)", "user")
    least, most = _range(spec.dtype)
    steps: Array = np.divide(numbers, np.float32(spec.scale))
    np.rint(steps, out=steps)
    steps += spec.zero_point
    np.minimum(np.maximum(steps, least, out=steps), most, out=steps)
    return steps.astype(spec.dtype)


@cache
def _range(dtype: str) -> tuple[int, int]:
    """Least and greatest value that is stored."""
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
