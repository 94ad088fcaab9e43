"""Tables in files: CSV, Parquet, Arrow IPC and JSON Lines, read and written batch by batch at constant memory."""

from nelbo.files.formats import FORMATS, Format, Limits, format_of
from nelbo.files.table import Table, open_table

__all__ = ["FORMATS", "Format", "Limits", "Table", "format_of", "open_table"]
