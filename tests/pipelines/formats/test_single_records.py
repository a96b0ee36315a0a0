"""Single records are those that Zarr reads, and a damaged file is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.shard import SIGNALS, ShardWriter
from pipelines.formats.single_records import read_single


def written(folder: Path, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Some compress well, some do not, so that blocks differ in length.
    noise_NLT = np.resize(rng.integers(-9000, 9000, 99_991, np.int16), (count, 8, 2500))
    x_NLT = noise_NLT // rng.choice([1, 30, 3000, 9001], (count, 1, 1)).astype(np.int16)
    writer = ShardWriter(folder)
    row = {"source": "s", "rate": 250.0, "samples": 2500, "labels": [], "notes": [], "signature": bytes(128)}
    for number, x_LT in enumerate(x_NLT):
        writer.append(x_LT, {**row, "record_id": str(number), "content_hash": str(number)})
    writer.close()
    return x_NLT


def test_records_of_several_shards_in_any_order(tmp_path: Path) -> None:
    one_NLT, other_NLT = written(tmp_path / "one", 1100), written(tmp_path / "other", 70, seed=1)
    wanted = [("one", 1099), ("other", 0), ("one", 63), ("one", 64), ("one", 1023), ("one", 1024), ("other", 69)]
    wanted += [("one", row) for row in range(0, 1100, 29)]
    found_NLT = read_single([(tmp_path / name, row) for name, row in wanted])
    of = {"one": one_NLT, "other": other_NLT}
    np.testing.assert_array_equal(found_NLT, np.stack([of[name][row] for name, row in wanted]))
    assert read_single([]).shape == (0, 8, 2500)


def test_a_chunk_of_zeros_is_not_stored_and_read_as_zeros(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "zeros")
    row = {"source": "s", "rate": 250.0, "samples": 2500, "labels": [], "notes": [], "signature": bytes(128)}
    for number in range(70):
        writer.append(np.full((8, 2500), number // 64, np.int16), {**row, "record_id": "r", "content_hash": "h"})
    writer.close()
    assert read_single([(tmp_path / "zeros", 5), (tmp_path / "zeros", 69)])[:, 0, 0].tolist() == [0, 1]


def test_a_chunk_that_cannot_be_compressed(tmp_path: Path) -> None:
    x_NLT = np.random.default_rng(0).integers(-32768, 32768, (70, 8, 2500), np.int16)
    writer = ShardWriter(tmp_path / "s")
    row = {"source": "s", "rate": 250.0, "samples": 2500, "labels": [], "notes": [], "signature": bytes(128)}
    for x_LT in x_NLT:
        writer.append(x_LT, {**row, "record_id": "r", "content_hash": "h"})
    writer.close()
    np.testing.assert_array_equal(read_single([(tmp_path / "s", at) for at in (0, 63, 69)]), x_NLT[[0, 63, 69]])


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "header", "offset", "block"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, damage: str) -> None:
    written(tmp_path / "s", 70)
    file = tmp_path / "s" / SIGNALS / "signal" / "c" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        if damage == "header":
            content[4:12] = b"\xff" * 8
        if damage == "offset":
            content[-260:-252] = (10**12).to_bytes(8, "little")
        if damage == "block":
            content[16:20] = (2**31).to_bytes(4, "little")
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2]}.get(damage, bytes(content)))
    with pytest.raises(ValueError, match=r"/0 cannot be read \(.*\): harmonize the partition again"):
        read_single([(tmp_path / "s", 0)])
