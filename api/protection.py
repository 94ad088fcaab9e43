"""Headers of every answer that keep browsers from doing more with it than they should."""

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""A Content-Security-Policy for data: whatever a browser takes it for, nothing in it is loaded or
run."""
OWN_FILES = (
    NOTHING + "; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
)
"""The policy of a page that needs files of this service, and asks it for data."""
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", NOTHING),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
