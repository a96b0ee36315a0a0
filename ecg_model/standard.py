"""The window of a harmonized ECG. This module imports nothing."""

RATE = 250  # samples a second
SECONDS = 10
SAMPLES = RATE * SECONDS
