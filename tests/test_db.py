"""Databases as they come."""

import pytest
from sqlalchemy.engine import make_url

from app.migrate import upgrade
from app.settings import SettingsError
from tests.conftest import admin


def test_a_database_that_does_not_keep_unicode_is_refused_in_one_line(server):
    admin(server, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    url = make_url(server).set(database="ascii").render_as_string(hide_password=False)

    with pytest.raises(SettingsError, match="SQL_ASCII"):
        upgrade(url)

    admin(server, "DROP DATABASE ascii WITH (FORCE)")
