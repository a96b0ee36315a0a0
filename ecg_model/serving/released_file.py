"""Files of a registered model, compared with the digests that were stored when it was released."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mlflow.pyfunc.model import PythonModelContext


def released_file(context: PythonModelContext, name: str) -> Path:
    """Return the path of an artifact of the model.

    Raises ValueError if its bytes are not those that were released: the model's configuration holds their sha256.
    """
    path = Path(context.artifacts[name])
    released = (context.model_config or {}).get(digest_key(name))
    with path.open("rb") as stream:
        present = hashlib.file_digest(stream, "sha256").hexdigest()
    if present != released:
        raise ValueError(
            f"{path.name} of this model has sha256 {present}, and {released} was released: restore the model's "
            "artifacts from a backup, or release it again"
        )
    return path


def digest_key(name: str) -> str:
    """Return the key of an artifact's digest in the model's configuration."""
    return f"{name}_sha256"
