"""How the values of a column are spelled: number and date formats, and Arrow types."""
