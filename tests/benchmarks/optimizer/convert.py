"""What plain TensorFlow Lite makes of a Keras model: the float file, and int8 as its guide tells to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tests.benchmarks.optimizer.fashion import Array


def float_file(model: Any) -> bytes:
    """A .tflite in float32."""
    content: bytes = tf.lite.TFLiteConverter.from_keras_model(_one_row(model)).convert()
    return content


def plain_int8(model: Any, calibration: Array) -> bytes:
    """Full-integer int8 by TFLiteConverter alone, calibrated on the rows of `calibration`."""

    def rows() -> Iterator[list[Array]]:
        for row in range(len(calibration)):
            yield [calibration[row : row + 1]]

    converter = tf.lite.TFLiteConverter.from_keras_model(_one_row(model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = rows
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def _one_row(model: Any) -> Any:
    given = model.inputs[0]
    inputs = keras.Input(batch_shape=(1, *given.shape[1:]), name=given.name)
    return keras.Model(inputs, model(inputs))
