"""Chapman-Shaoxing-Ningbo: 45,152 ECGs of 10 s at 500 Hz, PhysioNet `ecg-arrhythmia` 1.0.0.

`WFDBRecords/<01..46>/<010..461>/JSxxxxx.{hea,mat}`; the first folder is the partition. Two headers (JS01052, JS23074)
lack a line break; the reader repairs them and notes it.
"""

from __future__ import annotations

from pipelines.sources.base import Role, Source
from pipelines.sources.challenge import read_challenge
from pipelines.sources.physionet import listed_by_sums, partition_by, project_root

_ROOT = project_root("ecg-arrhythmia", "1.0.0")

CHAPMAN = Source(
    name="chapman",
    title="Chapman-Shaoxing-Ningbo 12-lead ECG arrhythmia database",
    version="1.0.0",
    doi="10.13026/wgex-er52",
    homepage="https://physionet.org/content/ecg-arrhythmia/1.0.0/",
    licence="CC BY 4.0",
    citation=(
        "Zheng J, Guo H, Chu H. A large scale 12-lead electrocardiogram database for arrhythmia study (version 1.0.0). "
        "PhysioNet 2022. doi:10.13026/wgex-er52"
    ),
    role=Role.PRETRAINING,
    bytes=5_100_000_000,
    root=_ROOT,
    archive="a-large-scale-12-lead-electrocardiogram-database-for-arrhythmia-study",
    partitions=tuple(f"{n:02d}" for n in range(1, 47)),
    list_files=listed_by_sums(_ROOT),
    partition_of=partition_by(_ROOT, r"WFDBRecords/(\d\d)/\d{3}/[\w-]+\.(?:hea|mat)"),
    read=read_challenge,
)
