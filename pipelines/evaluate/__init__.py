"""Evaluation of encoders: from encoders and harmonized ECGs to the products `probe/...` to `report` and `comparison`.

    statistics/  AUC, bootstrap, paired differences, calibration, on arrays
    features.py  embeddings and tokens of harmonized ECGs, with the records' labels
    probes/      heads on frozen encoders and fine-tuning, for one label task
    exposure.py  overlap between an encoder's pretraining data and a test set
    suite/       the named evaluations and their baselines
    waves/       P, QRS and T: delineation, segmentation, intervals
    report/      pages and tables

Imports point from the bottom of this list to its top. The next step is `pipelines.release`.
"""
