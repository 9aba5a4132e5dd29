"""Small Keras models, one per way in which channels couple; untrained, with weights that hide no mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from optimizer.data import Array
from optimizer.prune.coupling import Coupling, Kept
from optimizer.prune.importance import by_weights
from optimizer.prune.select import select

layers = keras.layers


class Own(keras.Layer):  # type: ignore[misc]
    """A user's layer, for which there is no rule."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2.0


def mlp() -> Any:
    return keras.Sequential(
        [keras.Input((12,)), layers.Dense(16, "relu"), layers.Dropout(0.2), layers.Dense(8, "tanh"), layers.Dense(3)]
    )


def residual() -> Any:
    """A convolution, two residual blocks on its channels, BatchNorm, squeeze and excite."""
    x = keras.Input((8, 8, 3))
    flow = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    for at in range(2):
        branch = layers.BatchNormalization()(layers.Conv2D(12, 3, padding="same", name=f"wide{at}")(flow))
        branch = layers.Conv2D(8, 1, name=f"back{at}")(layers.ReLU()(branch))
        flow = layers.Add(name=f"add{at}")([flow, branch])
    squeezed = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(flow))
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(layers.Conv2D(4, 1, name="squeeze")(squeezed))
    flow = layers.GlobalMaxPooling2D()(layers.Multiply()([flow, gate]))
    return keras.Model(x, layers.Dense(4, name="scores")(flow))


def mobile() -> Any:
    """Depthwise, also with a multiplier, separable and padded convolutions, PReLU."""
    x = keras.Input((9, 9, 2))
    flow = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(6, 3, use_bias=False, name="stem")(layers.ZeroPadding2D()(x)))
    flow = layers.DepthwiseConv2D(3, strides=2, padding="same")(flow)
    flow = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(flow)
    flow = layers.SeparableConv2D(10, 3, depth_multiplier=2, name="separable")(flow)
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.AveragePooling2D(2)(flow))))


def grouped() -> Any:
    """Convolutions in groups, also with one per channel, a norm of every channel by itself, dense layers by einsum."""
    x = keras.Input((8, 8, 3))
    flow = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    flow = layers.Conv2D(12, 3, padding="same", groups=2, activation="relu", name="pair")(flow)
    flow = layers.GroupNormalization(-1, name="apart")(flow)
    flow = layers.Conv2D(24, 3, padding="same", groups=12, name="each")(flow)
    flow = layers.EinsumDense("abcd,de->abce", (None, None, 10), "relu", "e", name="mixed")(flow)
    flow = layers.EinsumDense("...x,xy->...y", 6, name="plain")(flow)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(flow)))


def group_norm() -> Any:
    """Normalized in four groups and in one."""
    x = keras.Input((8, 8, 3))
    flow = layers.GroupNormalization(4, name="four")(layers.Conv2D(16, 3, name="stem")(x))
    flow = layers.GroupNormalization(1, name="one")(layers.Conv2D(6, 3, name="next")(layers.ReLU()(flow)))
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(flow)))


def dot_attention() -> Any:
    """Kinds of attention without a rule, between layers that can be pruned."""
    x = keras.Input((6, 5))
    seen = layers.Dense(8, name="into")(layers.Conv1D(10, 3, padding="same", activation="relu", name="before")(x))
    looked = layers.Attention(name="dot")([seen, seen])
    added = layers.AdditiveAttention(name="additive")([looked, seen])
    flow = layers.Dense(7, "relu", name="after")(layers.Dot(axes=(2, 2), name="pairs")([looked, added]))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(flow)))


def dense_net() -> Any:
    """Concatenated features, by a layer and over flattened ones."""
    x = keras.Input((6, 6, 3))
    a = layers.Conv2D(4, 3, padding="same", activation="relu", name="a")(x)
    b = layers.Conv2D(6, 3, padding="same", name="b")(layers.Concatenate()([x, a]))
    joined = layers.Concatenate()([a, b])
    flat = layers.Concatenate()([layers.Flatten()(joined), layers.Flatten()(b)])
    return keras.Model(x, [layers.Dense(2, name="left")(flat), layers.Dense(1, "sigmoid", name="right")(flat)])


def generator() -> Any:
    """A dense layer whose units become a picture's channels."""
    x = keras.Input((5,))
    flow = layers.Reshape((3, 3, 8))(layers.Dense(72, "relu", name="seeds")(x))
    flow = layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="larger")(flow)
    return keras.Model(x, layers.Conv2D(1, 3, padding="same", name="picture")(layers.UpSampling2D()(flow)))


def waves() -> Any:
    x = keras.Input((20, 2))
    flow = layers.MaxPooling1D()(keras.ops.relu6(layers.Conv1D(8, 5, name="conv")(x)) * 0.5)
    flow = layers.TimeDistributed(layers.Dense(6, "relu"), name="each")(flow)
    return keras.Model(x, layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(flow)))


def gru() -> Any:
    x = keras.Input((6, 4))
    flow = layers.GRU(10, return_sequences=True, name="first")(x)
    return keras.Model(x, layers.Dense(3, "softmax")(layers.GRU(8, reset_after=False, name="second")(flow)))


def recurrent() -> Any:
    """States that are handed on, both directions, a simple unit."""
    x = keras.Input((6, 4))
    flow, *states = layers.LSTM(8, return_sequences=True, return_state=True, name="encoder")(x)
    flow = layers.LSTM(8, return_sequences=True, name="decoder")(flow, initial_state=states)
    flow = layers.Bidirectional(layers.GRU(6, return_sequences=True), name="both")(flow)
    return keras.Model(x, layers.Dense(2)(layers.SimpleRNN(5, name="last")(flow)))


def attention() -> Any:
    """Two streams that look at each other; nothing normalizes, so cutting is exact."""
    x, y = keras.Input((7, 6), name="x"), keras.Input((5, 4), name="seen")
    looked = layers.MultiHeadAttention(4, 6, value_dim=5, output_shape=9, name="across")(x, y)
    flow = layers.MultiHeadAttention(2, 4, use_bias=False, name="self")(query=looked, value=looked)
    flow = layers.Add()([looked, flow])
    return keras.Model([x, y], layers.Dense(2)(layers.GlobalAveragePooling1D()(flow)))


def transformer(normalized: bool = True) -> Any:
    """Embedded tokens and places, two blocks of attention and dense layers."""
    x, places = keras.Input((10,), dtype="int32", name="tokens"), keras.Input((10,), dtype="int32", name="places")
    flow = layers.Add()([layers.Embedding(50, 16, name="token")(x), layers.Embedding(10, 16, name="place")(places)])
    for at in range(2):
        flow = layers.Add()([flow, layers.MultiHeadAttention(4, 4, name=f"attention{at}")(flow, flow)])
        flow = layers.LayerNormalization(name=f"norm{at}")(flow) if normalized else flow
        flow = flow + layers.Dense(16, name=f"back{at}")(layers.Dense(32, "gelu", name=f"wide{at}")(flow))
    return keras.Model([x, places], layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(flow)))


def masked_tokens() -> Any:
    """Steps that do not count: Keras wires masks through the graph."""
    x = keras.Input((8,), dtype="int32", name="tokens")
    flow = layers.Embedding(20, 12, mask_zero=True, name="token")(x)
    flow = layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="both")(layers.Dropout(0.1)(flow))
    flow = layers.GRU(10, return_sequences=True, name="steps")(flow)
    seen = layers.MultiHeadAttention(2, 4, name="looks")(flow, flow)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Add()([flow, seen]))))


def nested() -> Any:
    """A Sequential inside of a model; both, and a layer beside them, are used twice."""
    part = keras.Sequential([keras.Input((8,)), layers.Dense(10, "relu", name="inner"), layers.Dense(6)], name="part")
    seen = keras.Input((8,), name="seen")
    top = layers.Dense(8, name="top")(layers.Concatenate()([part(seen), part(layers.ReLU()(seen))]))
    tower = keras.Model(seen, top, name="tower")
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    stem = layers.Dense(8, name="stem")
    apart = layers.Subtract()([tower(stem(a)), tower(stem(b))])
    return keras.Model([a, b], layers.Dense(2)(layers.Maximum()([apart, stem(a)])))


EXACT: list[Callable[[], Any]] = [
    mlp, residual, mobile, dense_net, generator, waves, gru, recurrent, attention, lambda: transformer(False), nested,
    masked_tokens, grouped, dot_attention,
]  # fmt: skip
"""Of these a cut model computes just what the masked one does."""
ALL = [*EXACT, transformer, group_norm]


def built(build: Callable[[], Any], seed: int = 0) -> Any:
    """The model with every weight drawn: no zero bias and no scale of one hides a mistake."""
    keras.utils.set_random_seed(seed)
    model, random = build(), np.random.default_rng(seed)
    for weight in model.weights:
        drawn = random.uniform(0.5, 1.5, weight.shape) if "variance" in weight.name else None
        weight.assign(random.normal(0, 0.4, weight.shape) if drawn is None else drawn)
    return model


def rows_for(model: Any, count: int = 4) -> list[Array]:
    """Rows for every input: tokens for integers, normal noise for the rest."""
    random = np.random.default_rng(1)
    return [
        random.integers(0, 10, (count, *tensor.shape[1:])).astype("int32")
        if str(tensor.dtype).startswith("int")
        else random.normal(size=(count, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]


def answers(model: Any, rows: list[Array]) -> list[Array]:
    given = model(rows if len(rows) > 1 else rows[0], training=False)
    return [np.asarray(part) for part in keras.tree.flatten(given)]


def halved(coupling: Coupling, ratio: float = 0.5) -> Kept:
    """What stays when every group loses the same ratio, the smallest weights first."""
    return select(coupling, by_weights(coupling), {group.name: ratio for group in coupling.prunable()})
