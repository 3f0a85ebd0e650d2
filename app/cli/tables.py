"""Tables in a terminal: nothing in them is cut off, for what is shown is there to be copied."""

from rich.console import Console
from rich.table import Table


def show_table(table: Table) -> None:
    """Print *table*; where its lines don't fit, the terminal wraps them."""
    for column in table.columns:
        column.no_wrap = True
    console = Console(soft_wrap=True)
    width = console.measure(table).maximum
    Console(width=max(width, 1), soft_wrap=True).print(table, crop=False)
