"""What is computed of a stream and when, windows of any pieces, what feeds what, and what inputs become."""

from __future__ import annotations

import importlib.util

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import binding_queue, feeds, sound
from agent.binding_queue import Came, Compute, Done, Due, Left, Queue, Wake, Wrong
from agent.binding_windows import Windows, begin_anew, cut
from agent.bindings import refusal
from agent.contract.bindings import Audio, Binding, BindingError, check, check_own_topic
from agent.contract.tensors import TensorError, TensorSpec
from agent.frames import Feed

SPEC = (TensorSpec("x", "int8", (2, 3), 0.5, 0),)
BINDING = Binding(name="b", model="m", topic="t", format="json")
events = st.one_of(
    st.integers(1, 5).map(lambda n: Came(tuple(b"%d" % at for at in range(n)))),
    st.sampled_from([Wrong(), Done("predicted"), Done("failed"), Done("dropped"), Due(), Left()]),
)


def run(queue: Queue, *steps: tuple[binding_queue.Event, float]) -> tuple[Queue, list[binding_queue.Action | None]]:
    actions = []
    for event, now in steps:
        queue, action = binding_queue.step(queue, event, now)
        actions.append(action)
    return queue, actions


def test_one_is_computed_at_a_time_and_the_next_when_it_is_done() -> None:
    queue, actions = run(Queue(keep=4, every=0), (Came((b"1",)), 0), (Came((b"2",)), 1), (Done("predicted"), 2))
    assert [a.input.payload for a in actions if isinstance(a, Compute)] == [b"1", b"2"]
    assert (queue.received, queue.predicted, queue.busy) == (2, 1, True)


def test_the_oldest_that_waits_is_dropped_first() -> None:
    queue, _ = run(Queue(keep=2, every=0), (Came((b"1",)), 0), *((Came((b"%d" % n,)), 0) for n in range(2, 7)))
    assert [each.payload for each in queue.waiting] == [b"5", b"6"]
    assert queue.dropped == 3


def test_the_rate_holds_and_a_late_loop_does_not_lower_it() -> None:
    queue, actions = run(Queue(keep=9, every=0.1), (Came((b"1", b"2", b"3")), 0.0), (Done("predicted"), 0.01))
    assert actions[1] == Wake(0.1)
    queue, actions = run(queue, (Due(), 0.13), (Done("predicted"), 0.14))
    assert isinstance(actions[0], Compute)
    assert isinstance(actions[1], Wake)
    assert actions[1].at == pytest.approx(0.2)


def test_what_waits_is_stale_when_the_connection_is_gone() -> None:
    queue, _ = run(Queue(keep=4, every=0), (Came((b"1", b"2", b"3")), 0), (Left(), 1))
    assert (queue.waiting, queue.dropped, queue.busy) == ((), 2, True)


@given(steps=st.lists(st.tuples(events, st.floats(0, 10)), max_size=40), every=st.sampled_from([0.0, 0.5]))
def test_everything_that_came_is_counted_once_or_waits(
    steps: list[tuple[binding_queue.Event, float]], every: float
) -> None:
    queue, now, begun = Queue(keep=3, every=every), 0.0, []
    for event, passed in steps:
        if isinstance(event, Done) and not queue.busy:
            continue
        now += passed
        queue, action = binding_queue.step(queue, event, now)
        if isinstance(action, Compute):
            begun.append(now)
        assert len(queue.waiting) <= 3 + (not queue.busy)
    counted = queue.predicted + queue.dropped + queue.failed + len(queue.waiting) + queue.busy
    assert counted == queue.received
    assert len(begun) <= 1 + (begun[-1] - begun[0]) / every + 1e-6 if every and begun else True


@given(sizes=st.lists(st.integers(0, 40), max_size=12), window=st.integers(1, 20), hop=st.integers(1, 30))
def test_windows_are_the_same_however_the_samples_are_cut_into_pieces(sizes: list[int], window: int, hop: int) -> None:
    stream = bytes(at % 251 for at in range(sum(sizes)))
    windows, at = Windows(window=window, hop=hop), 0
    found: list[bytes] = []
    for size in sizes:
        windows, whole, left_out = cut(windows, stream[at : at + size], 1000)
        assert left_out == 0
        found += whole
        at += size
        assert len(windows.rest) < max(window, 1)
    assert found == [stream[b : b + window] for b in range(0, len(stream) - window + 1, hop)]


def test_of_a_long_piece_only_the_newest_windows_are_made() -> None:
    windows, whole, left_out = cut(Windows(window=4, hop=1), bytes(range(100)), 2)
    assert (whole, left_out) == ((bytes(range(95, 99)), bytes(range(96, 100))), 95)
    assert begin_anew(windows).rest == b""


@pytest.mark.parametrize(
    "topic",
    ["", " a", "a\nb", "#", "a/+", "$SYS/x", "lepta", "lepta/v1/agents/a/cmd", "lepta/v2/x", "a%u", "a\x00", "a/" * 8],
)
def test_no_topic_of_lepta_or_of_many_can_be_bound(topic: str) -> None:
    with pytest.raises(BindingError):
        check(msgspec.structs.replace(BINDING, topic=topic))
    with pytest.raises(BindingError):
        check_own_topic(topic)


def test_predictions_can_be_bound_and_never_granted_for_publishing() -> None:
    chained = "lepta/v1/predictions/other/{device}"
    check(msgspec.structs.replace(BINDING, topic=chained))
    with pytest.raises(BindingError, match="your own"):
        check_own_topic(chained)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": "mfcc"}, "frame"),
        ({"features": "mfcc", "frame": 8, "step": 4, "coefficients": 50}, "coefficient"),
        ({"features": "log-mel", "frame": 800, "step": 4}, "fits"),
        ({"features": "chroma"}, "not known"),
        ({"sample": "int24"}, "samples are"),
    ],
)
def test_sound_that_cannot_be_read_says_what_to_change(changes: dict[str, object], says: str) -> None:
    audio = msgspec.structs.replace(Audio(rate=8000, window=64, hop=32), **changes)
    with pytest.raises(BindingError, match=says):
        check(msgspec.structs.replace(BINDING, format="pcm", audio=audio))


def test_pictures_are_refused_where_pillow_is_missing_and_the_reason_says_what_to_install() -> None:
    refused = refusal(msgspec.structs.replace(BINDING, format="image"))
    assert refusal(BINDING) == ""
    if importlib.util.find_spec("PIL") is None:
        assert "pip install 'lepta[image]'" in refused
    else:
        assert refused == ""


def feed(payload: bytes, **changes: object) -> tuple[str, list[object]]:
    [tensor] = feeds.inputs_of(Feed(payload, msgspec.structs.replace(BINDING, **changes)), SPEC, None)
    assert tensor.shape == (1, 2, 3)
    return tensor.dtype, np.frombuffer(tensor.data, tensor.dtype).tolist()


def test_a_raw_tensor_is_the_stored_dtype_or_float32_by_its_length() -> None:
    assert feed(bytes(range(6)), format="tensor") == ("int8", list(range(6)))
    assert feed(np.arange(6, dtype="<f4").tobytes(), format="tensor") == ("float32", list(range(6)))
    with pytest.raises(TensorError, match="takes 6 of int8 or 24 of float32"):
        feed(bytes(7), format="tensor")


def test_json_comes_as_an_array_by_name_as_a_request_or_as_a_prediction() -> None:
    row = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    for value in (
        row,
        [row[:3], row[3:]],
        {"x": row},
        {"inputs": [{"name": "x", "data": row}]},
        {"binding": "b", "scores": row},
    ):
        assert feed(msgspec.json.encode(value)) == ("float32", row)


def test_a_row_is_found_in_order_of_its_scores_with_the_models_labels() -> None:
    top, scores = feeds.found({"scores": np.array([[0.1, 0.7, 0.2]], np.float32)}, ("a", "b"), 2)
    assert [(guess.label, guess.number) for guess in top] == [("b", 1), ("2", 2)]
    assert scores == pytest.approx((0.1, 0.7, 0.2))
    assert feeds.found({"y": np.ones((1, 1), np.float32)}, (), 2) == ((), (1.0,))
    assert feeds.found({"y": np.zeros((1, 40, 40), np.float32)}, (), 2) == ((), ())


def test_samples_are_scaled_and_features_find_the_band_of_a_tone() -> None:
    audio = Audio(rate=8000, window=1024, hop=512, frame=256, step=128, bands=20, coefficients=6)
    tone = np.sin(2 * np.pi * 1000 * np.arange(1024) / 8000)
    window = (tone * 32767).astype("<i2").tobytes()
    assert np.allclose(sound.features(audio, window), tone, atol=1e-3)
    single = msgspec.structs.replace(audio, sample="float32")
    assert np.allclose(sound.features(single, tone.astype("<f4").tobytes()), tone, atol=1e-6)
    mels = sound.features(msgspec.structs.replace(audio, features="log-mel"), window)
    assert mels.shape == (7, 20)
    edges = np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + 4000 / 700), 22)
    centre = np.argmin(np.abs(700 * (10 ** (edges[1:-1] / 2595) - 1) - 1000))
    assert set(mels.argmax(1)) <= {centre - 1, centre, centre + 1}
    cepstra = sound.features(msgspec.structs.replace(audio, features="mfcc"), window)
    assert cepstra.shape == (7, 6)
    assert np.allclose(cepstra[:, 0], mels.sum(1) / np.sqrt(20), rtol=1e-4)
