"""Training: from a table to a calibrated artifact. The only package that loads torch."""
