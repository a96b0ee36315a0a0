"""The version of each step, in one place that costs nothing to import: Dagster's code versions and the fingerprints.

Raise a number where the same inputs and settings give other bytes; nothing else makes a finished step run again.
"""

RAW = "1"
ECGS = "2"
CORPUS = "3"
ENCODER = "2"
REFERENCE = "1"
FEATURES = "1"
PROBE = "3"
DRAWS = "1"
REPORT = "4"
RELEASE = "1"
CLASSIFIER = "1"
DELINEATION = "1"
SEGMENTATION = "2"
REGRESSION = "2"
