"""Headers of every answer that limit what a browser may do with it."""

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of data: a browser loads and runs nothing in it."""
OWN_FILES = (
    NOTHING + "; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
)
"""The policy of a page that uses files and data of this service."""
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", NOTHING),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
