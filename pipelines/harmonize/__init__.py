"""Harmonization: from a partition's files to the product `ecgs/<source>/<partition>`, one shard.

    convert.py  records of any rate, length and lead order to 8 leads, 250 Hz, 10 s
    window.py   the part of a record that is used: its leads, as far as they were recorded
    quality.py  quality figures of an ECG, and the limits beyond which it is dropped
    patients.py how many ECGs name a patient
    checks.py   checks of a written shard
    shards.py   list the current shards, and read their records
    step.py     the product

Every record is in the array or in the table of dropped records. The next step is `pipelines.corpus`.
"""
