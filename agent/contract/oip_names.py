"""Names in the Open Inference Protocol: its header, and its element types with numpy's for the same. No numpy."""

from __future__ import annotations

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Of the JSON in front of raw tensors, in bytes."""
CODINGS = {"gzip": 31, "deflate": 15}
"""Content-Encoding of request bodies, with zlib's `wbits` for it."""

TO_NUMPY = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
FROM_NUMPY = {numpy: protocol for protocol, numpy in TO_NUMPY.items()}
