"""What an encoder reads, and how it was pretrained, in words for pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecg_model.config import AnyEncoderConfig
from ecg_model.leads import LEADS
from ecg_model.standard import RATE

_OBJECTIVES = {"jepa": "JEPA", "cpc": "CPC"}
"""By the field of a recipe that holds it."""
_NETWORKS = {"transformer": "a transformer of patches", "s4": "an S4 encoder"}
"""By the field `network` of an encoder's settings, which those of the transformer do not have."""


def input_in_words(config: AnyEncoderConfig) -> str:
    """Return an encoder's leads, window, rate and unit, such as `leads I, II, V1 to V6, 10 s at 250 Hz, millivolt`."""
    eight = "I, II, V1 to V6"
    leads = f"leads {eight}" if config.leads == len(LEADS) else f"{config.leads} leads, computed from {eight}"
    rate = getattr(config, "rate", RATE)
    scale = "" if config.input_scale == 1 else f" times {config.input_scale:g}"
    return f"{leads}, {config.window / RATE:g} s at {rate} Hz, millivolt{scale}"


def method_in_words(recipe: Mapping[str, Any]) -> str | None:
    """Return the objective and the network of a recipe, such as `CPC on an S4 encoder`, or None if it is none of ours.

    recipe: JSON values, as products and registered versions have them.
    """
    for field, objective in _OBJECTIVES.items():
        if settings := recipe.get(field):
            network = settings["encoder"].get("network", "transformer")
            return f"{objective} on {_NETWORKS.get(network, network)}"
    return None
