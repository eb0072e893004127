"""What generators of all families share."""

STEP = 2.0**-30
