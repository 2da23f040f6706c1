"""Tables of a report in the 80 columns of a terminal."""

from saq_qat.report.tables import Table
from saq_qat_runtime.report.narrow import WIDTH, column_lines

__all__ = ["table_lines"]


def table_lines(table: Table, width: int = WIDTH) -> list[str]:
    """A table as lines with its note, as ``column_lines`` lays it out. Pictures are left out."""
    rows = [[cell if isinstance(cell, str) else "" for cell in row] for row in table.rows]
    lines = column_lines(table.columns, rows, words=table.words, width=width)
    return lines + ([table.note] if table.note else [])
