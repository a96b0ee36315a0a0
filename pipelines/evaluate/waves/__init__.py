"""P, QRS and T waves: delineations of ECGs, and encoders that predict them.

    config.py              settings of pseudo-labels and segmentation
    annotations.py         waves as a table, as classes of samples, as intervals
    boundaries.py          match predicted boundaries with annotated ones
    pseudo_labels.py       waves found by neurokit2, for ECGs without annotations
    delineation.py         the product `delineation/...`: waves of harmonized ECGs
    segmentation_model.py  the network that classifies samples, and its training
    segmentation.py        the product `segmentation/...`
    intervals.py           the product `regression/...`: heart rate, PR, QRS, QT
    run.py                 run these evaluations by name
    tables.py              results as tables and examples

The report reads the results.
"""
