"""ECGs, and copies of them in the forms that a copy may have."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfiltfilt

from pipelines.records import Record
from pipelines.sources import SOURCES
from tests.support.paths import SHARED

REAL = SHARED / "real"
MIRROR = REAL / "mirror"


def microvolt(x_NLT: NDArray[np.floating]) -> NDArray[np.int16]:
    return np.rint(np.clip(x_NLT * 1000, -32767, 32767)).astype(np.int16)


def synthetic(n: int, seed: int = 0) -> NDArray[np.float64]:
    """(n, 8, 2500) millivolt: beats of random rate, shape and place, with 3 uV of noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(2500) / 250
    x_NLT = rng.normal(0, 0.003, (n, 8, 2500))
    for x_LT in x_NLT:
        beats = np.cumsum(np.r_[rng.uniform(0, 1), rng.normal(60 / rng.uniform(45, 120), 0.02, 30)])
        for delay, width, size in ((0, 0.012, 1.0), (0.03, 0.015, 0.4), (0.25, 0.04, 0.3)):
            pulse = np.exp(-0.5 * ((time[:, None] - beats - delay) / width) ** 2).sum(axis=1)
            x_LT += size * rng.normal(0, 0.6, (8, 1)) * pulse
    return x_NLT


@lru_cache
def mirrored(name: str) -> tuple[list[str], NDArray[np.float32]]:
    """Record ids and (N, 12, 5000) millivolt of a source's records at 500 Hz in the mirror of real ECGs."""
    if not MIRROR.is_dir():
        pytest.skip("needs ../shared/real/mirror")
    source = SOURCES[name]
    listing = source.list_files(lambda path: (MIRROR / path).read_bytes())
    items = [
        item
        for partition in source.available(listing)
        for item in source.read(MIRROR, partition, source.files_of(listing, partition))
    ]
    records = [item for item in items if isinstance(item, Record)]
    assert len(records) == len(items)
    return [record.record_id for record in records], np.stack([record.signal_LT for record in records])


def packed() -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """ids and (N, 12, 1000) microvolt of the complete PTB-XL at 100 Hz."""
    if not (REAL / "ptbxl100.py").is_file():
        pytest.skip("needs ../shared/real/ptbxl100.py")
    spec = importlib.util.spec_from_file_location("ptbxl100", REAL / "ptbxl100.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ids, x_NTL = module.load()
    return ids, x_NTL.transpose(0, 2, 1)


def ptbxl_and_chapman() -> NDArray[np.float64]:
    """(N, 12, 5000) millivolt: what harmonization keeps of both sources in the mirror."""
    x_NLT = np.concatenate([x for _, x in map(mirrored, ("ptbxl", "chapman"))]).astype(np.float64)
    return x_NLT[np.isfinite(x_NLT).all(axis=(1, 2)) & (np.ptp(x_NLT, axis=2) > 0).all(axis=1)]


DISTORTIONS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "4.88 uV": (lambda x: np.rint(x / 0.00488) * 0.00488, 500),
    "gain 1.7 and offset": (lambda x: 1.7 * x + 0.5, 500),
    "gain 0.2": (lambda x: 0.2 * x, 500),
    "100 Hz": (lambda x: resample_poly(x, 1, 5, axis=-1, padtype="line"), 100),
    "100 Hz, gain 0.9, 5 uV": (
        lambda x: np.rint(0.9 * resample_poly(x, 1, 5, axis=-1, padtype="line") / 0.005) * 0.005,
        100,
    ),
    "250 Hz, 5 uV": (lambda x: np.rint(resample_poly(x, 1, 2, axis=-1, padtype="line") / 0.005) * 0.005, 250),
    "400 Hz": (lambda x: resample_poly(x, 4, 5, axis=-1, padtype="line"), 400),
    "0.5-40 Hz": (lambda x: sosfiltfilt(butter(2, (0.5, 40), "bandpass", fs=500, output="sos"), x, axis=-1), 500),
    "2 ms later": (lambda x: np.concatenate([x[..., 1:], x[..., -1:]], axis=-1), 500),
}


def regular(period: float, *, noise: float = 0.003, seed: int = 0) -> NDArray[np.float64]:
    """(8, 2500) millivolt: P, QRS and T every `period` seconds from 0.4 s on, with noise; all of the same shape."""
    rng = np.random.default_rng(seed)
    since_T = (np.arange(2500) / 250 - 0.4 + 0.5 * period) % period - 0.5 * period
    waves = ((-0.16, 0.025, 0.12), (0.0, 0.012, 1.0), (0.03, 0.012, -0.25), (0.28, 0.045, 0.3))
    beat_T = sum(size * np.exp(-0.5 * ((since_T - delay) / width) ** 2) for delay, width, size in waves)
    sizes_L1 = np.array([[0.5], [0.9], [-0.4], [0.7], [1.1], [1.2], [1.0], [0.8]])
    return sizes_L1 * beat_T + rng.normal(0, noise, (8, 2500))
