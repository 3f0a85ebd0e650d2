"""callsheet config: the settings in force, and where each came from."""

from pydantic import SecretStr
from rich import box
from rich.table import Table
from sqlalchemy.engine import make_url

from app.cli.tables import show_table
from app.settings import Settings


def config() -> None:
    """Show every setting in force and where it came from; secrets stay hidden."""
    settings = Settings.read()
    table = Table("setting", "value", "from", "meaning", box=box.SIMPLE_HEAD)
    sources = settings.sources()
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        table.add_row(name.upper(), shown(name, value), sources[name], field.description)
    show_table(table)


def shown(name: str, value: object) -> str:
    """*value* as it may be seen: of a secret only that it is set, of the database everything but the password."""
    if value is None:
        return "-"
    if name == "database_url" and isinstance(value, SecretStr):
        return make_url(value.get_secret_value()).render_as_string(hide_password=True)
    return "********" if isinstance(value, SecretStr) else str(value)
