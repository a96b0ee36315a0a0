"""Products whose files a test exchanged."""

from __future__ import annotations

import json

from pipelines.cache import DONE, FILES, Product


def reseal(product: Product) -> None:
    """Write the sizes of a product's files as they are now into its done.json, so that it is taken as finished."""
    done = json.loads((product.path / DONE).read_text())
    done[FILES] = {name: (product.path / name).stat().st_size for name in done[FILES]}
    (product.path / DONE).write_text(json.dumps(done))
