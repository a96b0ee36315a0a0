"""The version of each step, in one place that costs nothing to import: Dagster's code versions and the fingerprints.

Raise a number where the same inputs and settings give other bytes; nothing else makes a finished step run again.
RELEASE counts the code that ships with a model, too: what mends `ecg_model/serving` raises it, and the next release of
the same weights is a version with that code.
"""

RAW = "1"
ECGS = "2"
CORPUS = "3"
ENCODER = "2"
REFERENCE = "1"
FEATURES = "1"
PROBE = "4"
REPORT = "4"
RELEASE = "1"
CLASSIFIER = "1"
DELINEATION = "1"
SEGMENTATION = "3"
REGRESSION = "3"
