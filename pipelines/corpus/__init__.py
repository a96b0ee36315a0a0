"""The training set: from all harmonized shards to the product `corpus`, an index of rows of shards.

    config.py          settings
    same_recording.py  whether two ECGs are one recording, by their signals
    copies.py          find copies: near to one that is kept, by signature and then by signal
    selection.py       exclude duplicates, and records, copies and patients of evaluation sets
    split.py           train and validation by patient
    step.py            the product
    subset.py          a share of its training patients, for scaling curves
    index.py           read the index and the signals that it names
    left_out.py        every record that harmonization dropped or the corpus left out, and why
    checks.py          check that training and evaluation share no record and no patient
    figures.py         amplitude, wander and spectrum of each source
    export.py          harmonized ECGs for other programs

The next step is `pipelines.pretrain`.
"""
