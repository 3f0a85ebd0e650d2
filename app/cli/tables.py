"""Tables in a terminal: nothing in them is cut off, for what is shown is there to be copied."""

from typing import Final

from rich.console import Console
from rich.table import Table

WIDEST: Final = 1000


def show_table(table: Table) -> None:
    """Print *table* as wide as it wants to be; a narrower terminal wraps its lines."""
    for column in table.columns:
        column.no_wrap = True
    width = Console(width=WIDEST).measure(table).maximum
    Console(width=width, soft_wrap=True).print(table, crop=False)
