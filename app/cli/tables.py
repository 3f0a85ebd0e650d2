"""Tables in a terminal: nothing in them is cut off, for what is shown is there to be copied."""

from typing import Final

from rich.console import Console
from rich.table import Table

WIDEST: Final = 100_000


def show_table(table: Table) -> None:
    """Print *table*; where its lines don't fit, the terminal wraps them."""
    for column in table.columns:
        column.no_wrap = True
    # Measured where there is room for all of it: a terminal's own width would cut it down.
    width = Console(width=WIDEST).measure(table).maximum
    Console(width=max(width, 1), soft_wrap=True).print(table, crop=False)
