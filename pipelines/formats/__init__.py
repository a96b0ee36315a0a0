"""File formats: WFDB, our shards, and signatures of ECGs.

    wfdb.py              read a WFDB record: header and 16-bit signals
    wfdb_annotations.py  read the wave marks of a WFDB annotation file
    shard.py             write and read a harmonized shard: a Zarr array and two Parquet tables
    simhash.py           signatures of ECGs, and groups of records with close signatures

Nothing here knows a source or a step.
"""
