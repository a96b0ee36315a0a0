"""The pipeline from a hospital's files to a registered model.

    cli/                    the `ecg` command, one file per command
    release/  maintenance/  registered models, the gate, promotion | garbage collection, verification, upstream changes
    evaluate/               probes, wave tasks, the suite and the report
    pretrain/  incoming/    the training program | own ECGs
    corpus/                 selection, deduplication, train/validation split
    harmonize/              records of any format to one array per partition
    download/               verified files from hosts or a mirror
    sources/  simulate/  plots/  encoders/
    formats/  tasks/  tracking.py  home.py
    cache.py                the content-addressed store that every step writes to
    hashing.py  records.py  versions.py  finding.py  facts.py  formatting.py  device.py

Read from the bottom up: a folder or module imports only those below it.
"""

import os

# Waiting OpenMP threads sleep instead of spinning. If other work shares the cores, spinning makes a training step 2 to
# 20 times slower; on an idle machine it gains nothing (benchmarks/RESULTS.md). torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
