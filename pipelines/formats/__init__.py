"""File formats: WFDB, HDF5, vendors' formats, our shards, and signatures of ECGs.

    wfdb.py              read a WFDB record, of one segment or several
    wfdb_header.py       what its header says
    wfdb_signals.py      its samples: those of 16 bit, and by wfdb_library.py and wfdb_worker.py all others
    wfdb_annotations.py  read the wave marks of a WFDB annotation file
    limits.py            how much of a file from outside is read
    process.py           ask a process of its own to decode a file; worker.py is the other side
    hdf5.py              numbers and text in HDF5 files of others
    zip_archive.py       open zip archives of others
    reading.py           one ECG as a format's reader gives it
    vendor/              DICOM, SCP-ECG, HL7 aECG, MUSE, Philips, Mortara, ISHNE, MFER, EDF
    shard.py             write and read a harmonized shard: a Zarr array and two Parquet tables
    single_records.py    read single records of a shard
    simhash.py           signatures of ECGs, and chains of close signatures

Nothing here knows a source or a step.
"""
