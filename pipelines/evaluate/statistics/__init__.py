"""Statistics on arrays of scores; nothing here knows ECGs or products.

    ranking.py      AUC, average precision and ROC curves, for many classes and resamples at once
    bootstrap.py    resamples by patient, percentile intervals, p-values
    paired.py       paired differences of two scores, and Holm's adjustment
    calibration.py  scores to calibrated probabilities

Shapes: N records, C classes, B bootstrap resamples.
"""
