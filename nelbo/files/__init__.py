"""Tables in files: CSV, Parquet, Arrow IPC and JSON Lines, read and written batch by batch."""

from nelbo.files.formats import DETECTED, FORMATS, CsvOptions, Format, Limits, format_of
from nelbo.files.parts import PART_ROWS, Content, Digest, part_name, read_parts, write_parts
from nelbo.files.reading import Reading, read_arguments, read_into_parts, too_large
from nelbo.files.table import BATCH_ROWS, Table, open_table, table_of
from nelbo.files.target import SCRATCH, check_folder, check_target, is_stream, open_target
from nelbo.files.writer import TableWriter, open_writer

__all__ = [
    "BATCH_ROWS",
    "DETECTED",
    "FORMATS",
    "PART_ROWS",
    "SCRATCH",
    "Content",
    "CsvOptions",
    "Digest",
    "Format",
    "Limits",
    "Reading",
    "Table",
    "TableWriter",
    "check_folder",
    "check_target",
    "format_of",
    "is_stream",
    "open_table",
    "open_target",
    "open_writer",
    "part_name",
    "read_arguments",
    "read_into_parts",
    "read_parts",
    "table_of",
    "too_large",
    "write_parts",
]
