"""Requests that Schemathesis makes from the OpenAPI description, answered by the real service."""

KEPT = "adult"
"""The model of the description's examples: it is there from the start, and no case deletes it."""
