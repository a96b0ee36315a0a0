"""Import a released encoder, ECG-JEPA or ECG-CPC: which of both a file is, is told by its content."""

from __future__ import annotations

from pathlib import Path

from pipelines.cache import Product, Workspace
from pipelines.encoders.checkpoint_file import Checkpoint, require_checkpoint, shown
from pipelines.encoders.import_reference import materialize_reference
from pipelines.encoders.import_reference_cpc import materialize_reference_cpc, stored_names
from pipelines.encoders.names import REFERENCE, REFERENCE_CPC, EncoderNames

_REMEDY = "give the .pth of ECG-JEPA or the .ckpt of ECG-CPC, as their authors released them"
_PICKLE = b"\x80"  # its first byte in torch's older form, without a zip


def materialize_released(workspace: Workspace, file: Path) -> tuple[EncoderNames, Product]:
    """Return the names of the encoder that a released file holds, and its product, as its own import makes it.

    Raises ValueError, in one line, if the file holds neither encoder, and leaves nothing behind.
    """
    require_checkpoint(file, _REMEDY)
    with file.open("rb") as stream:
        older = stream.read(1) == _PICKLE
    if not older and _is_cpc(file):
        return REFERENCE_CPC, materialize_reference_cpc(workspace, file)
    try:
        return REFERENCE, materialize_reference(workspace, file)
    except ValueError as error:
        if not older:
            raise
        raise ValueError(f"{error} (in torch's older form, which this is, ECG-JEPA alone is read)") from error


def _is_cpc(file: Path) -> bool:
    """Whether a file is an ECG-CPC; it may be an ECG-JEPA if not. Raises ValueError if it clearly is neither."""
    with file.open("rb") as stream:
        try:
            weights = Checkpoint(stream).tensors
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}: {_REMEDY}") from error
    if weights and not stored_names(weights):
        raise ValueError(f"{file.name}: weights of another network, such as {shown(min(weights))}: {_REMEDY}")
    return bool(weights)
