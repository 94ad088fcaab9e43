"""How the values of a column are written in text, and in which Arrow type: read, found out, and
written back."""
