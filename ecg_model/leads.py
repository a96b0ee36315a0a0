"""The leads by name, in the order that arrays hold them."""

LEADS_12 = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The independent leads, which a model reads."""
DERIVED = ("III", "aVR", "aVL", "aVF")
"""The leads that follow from I and II."""
