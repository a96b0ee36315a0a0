"""The file of metrics goes on after a kill or a loss of power."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from pipelines.pretrain.metrics_log import _MetricsFile


@pytest.mark.parametrize(
    "torn", [b"\0" * 64 + b"\n", b'{"step": 3, "lo\n', b'{"step": 3, "loss": 0.1}', b"[]\n", b"7\n"]
)
def test_a_torn_line_is_left_out_with_a_warning(tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1 / step}).encode() + b"\n" for step in (1, 2, 4, 5)]
    at = 2 if torn.endswith(b"\n") else 4  # a line that was cut off is the last one
    path.write_bytes(b"".join([*lines[:at], torn, *lines[at:]]))
    with caplog.at_level(logging.WARNING):
        metrics = _MetricsFile(path, last_step=4)
    assert f"{path}: line {at + 1} is torn" in caplog.text
    metrics.append({"step": 6, "loss": 0.5})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 4, 6]
