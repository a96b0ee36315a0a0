"""What others install: the harmonized ECGs of a data home, as xarray has them. No part of the pipeline is imported.

ecgs        open a source, a partition or a drop: `ecgs.open("ptbxl")`
find        which shards a name or a path means
signals     the ECGs of several shards as one array that is read when it is sliced
data_sets   title, licence and citation of the public sources
place       which folder of a data home is meant
layout      names in a data home
soundness   whether files are as they were written
command     the command `ecg`
"""
