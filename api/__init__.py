"""The HTTP service: it accepts tables and jobs, answers with states and results, and never runs a
model."""
