"""The version of each step, part of its fingerprints and Dagster's code version. Imports nothing.

Raise a number if the same inputs and settings give other bytes; nothing else makes a finished step run again.
RELEASE covers the code that ships with a model, too: a fix in `ecg_model/serving` raises it, and the next release of
the same weights is a new version with that code.
"""

RAW = "1"
ECGS = "3"
CORPUS = "4"
ENCODER = "2"
REFERENCE = "1"
REFERENCE_CPC = "1"
FEATURES = "1"
PROBE = "4"
REPORT = "4"
RELEASE = "2"
CLASSIFIER = "1"
OWN_CLASSIFIER = "1"
DELINEATION = "1"
SEGMENTATION = "3"
REGRESSION = "3"
SCALING = "1"
