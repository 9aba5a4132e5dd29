"""The user's model, in any of the kinds that are taken. Refused by what stands in it first; loaded afterwards, in a
forked child."""

from __future__ import annotations

from optimizer.sources.keras_file import check_static, input_specs, load_source
from optimizer.sources.specs import InputSpec, SourceError

__all__ = ["InputSpec", "SourceError", "check_static", "input_specs", "load_source"]
