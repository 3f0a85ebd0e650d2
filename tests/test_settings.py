"""Settings: where they come from, and how their faults are told."""

import pytest

from app.cli.config import shown
from app.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A folder without `.env`, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def test_every_fault_is_told_at_once_in_plain_words(monkeypatch):
    monkeypatch.setenv("PORT", "many")
    monkeypatch.setenv("PUBLIC_URL", "callsheet.example.com")
    monkeypatch.setenv("DATABASE_URL", "mysql://root:hunter2@db/x")

    with pytest.raises(SettingsError) as error:
        Settings.read()

    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["DATABASE_URL", "PORT", "PUBLIC_URL"]
    assert "hunter2" not in str(error.value)


def test_a_secret_may_be_in_a_file(monkeypatch, nowhere):
    (nowhere / "key").write_text("id:secret\n")
    monkeypatch.setenv("FAL_KEY_FILE", str(nowhere / "key"))

    settings = Settings.read()

    assert settings.fal_key is not None
    assert settings.fal_key.get_secret_value() == "id:secret"
    assert settings.sources()["fal_key"] == "file"


def test_the_secret_of_links_may_be_in_a_file_and_must_be_long(monkeypatch, nowhere):
    (nowhere / "secret").write_text("s" * 32)
    monkeypatch.setenv("LINK_SECRET_FILE", str(nowhere / "secret"))

    settings = Settings.read()

    assert settings.link_secret is not None
    assert settings.link_secret.get_secret_value() == "s" * 32
    with pytest.raises(SettingsError, match="LINK_SECRET: must have 32"):
        Settings.read(link_secret="short")


@pytest.mark.parametrize("url", ["s3://bucket/x/", "gs://bucket", "az://container/x", "file:///srv/outputs"])
def test_results_may_be_kept_in_any_of_these(url):
    assert Settings.read(storage_url=url).storage_url == url.rstrip("/")


@pytest.mark.parametrize("url", ["bucket", "s3://", "ftp://x/y", "https://x.example/"])
def test_results_may_not_be_kept_just_anywhere(url):
    with pytest.raises(SettingsError, match="STORAGE_URL"):
        Settings.read(storage_url=url)


def test_a_secret_file_that_cannot_be_read_is_told(monkeypatch):
    monkeypatch.setenv("FAL_KEY_FILE", "/nowhere/key")

    with pytest.raises(SettingsError, match="FAL_KEY_FILE names /nowhere/key"):
        Settings.read()


def test_code_wins_over_environment_and_that_over_file_and_dotenv(monkeypatch, nowhere):
    (nowhere / ".env").write_text("PORT=1\nBIND=from-dotenv\nLOG_LEVEL=ERROR\nUNKNOWN=x\n")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("BIND", "from-environment")

    settings = Settings.read(port=3)
    sources = settings.sources(port=3)

    assert (settings.port, settings.bind, settings.log_level) == (3, "from-environment", "ERROR")
    assert (sources["port"], sources["bind"], sources["log_level"]) == ("given", "environment", ".env")
    assert sources["poll_s"] == "default"


@pytest.mark.parametrize("url", ["postgres://u:p@h/d", "postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"])
def test_any_common_spelling_of_a_database_is_taken(url):
    settings = Settings.read(database_url=url)

    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql+psycopg://u:p@h/d"


def test_a_lease_that_a_slow_call_outlives_is_refused():
    with pytest.raises(SettingsError, match="LEASE_S"):
        Settings.read(fal_timeout_s=60, lease_s=90)


def test_settings_never_change():
    with pytest.raises(Exception, match="frozen"):
        Settings.read().port = 1  # type: ignore[misc]


def test_secrets_are_not_shown():
    settings = Settings.read(fal_key="id:secret", database_url="postgresql://u:hunter2@h/d")

    told = " ".join(shown(name, getattr(settings, name)) for name in Settings.model_fields) + repr(settings)

    assert "id:secret" not in told
    assert "hunter2" not in told
    assert "u:***@h/d" in told


def test_several_fal_accounts_stand_beside_the_one_of_the_key(monkeypatch):
    monkeypatch.setenv("FAL_KEY", "a:1")
    monkeypatch.setenv("FAL_ACCOUNTS", '{"studio": {"key": "b:2", "at_once": 20}}')

    settings = Settings.read(fal_at_once=5)

    assert settings.accounts() == {"default": ("a:1", 5), "studio": ("b:2", 20)}
    assert "b:2" not in repr(settings) + shown("fal_accounts", settings.fal_accounts)
    assert Settings.read(**settings.model_dump(exclude_unset=True)).accounts() == settings.accounts()


def test_fal_accounts_may_be_in_a_file_and_need_no_key_beside_them(monkeypatch, nowhere):
    (nowhere / "accounts").write_text('{"studio": {"key": "b:2"}}\n')
    monkeypatch.setenv("FAL_ACCOUNTS_FILE", str(nowhere / "accounts"))

    settings = Settings.read()

    assert settings.has_fal
    assert settings.accounts() == {"studio": ("b:2", None)}


def test_without_any_key_there_is_one_account_and_no_fal():
    assert (Settings.read().has_fal, Settings.read().accounts()) == (False, {"default": ("", None)})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"studio": {"key": "hunter2"}, ', ["FAL_ACCOUNTS: must be JSON"]),
        ('{"a": {"key": "hunter2"}, "a": {"key": "hunter2"}}', ["FAL_ACCOUNTS: a is there twice"]),
        (
            '{"B!": {"key": "hunter2"}, "c": {"key": "hunter2 x"}, "d": {"key": "h", "at_once": 0}, "e": {"at": 1}}',
            [
                "FAL_ACCOUNTS.B!",
                "FAL_ACCOUNTS.C.KEY",
                "FAL_ACCOUNTS.D.AT_ONCE",
                "FAL_ACCOUNTS.E.KEY",
                "FAL_ACCOUNTS.E.AT",
            ],
        ),
        ('{"default": {"key": "hunter2"}}', ["FAL_ACCOUNTS: default is the account of FAL_KEY"]),
    ],
)
def test_every_fault_of_the_fal_accounts_is_told_without_a_key(monkeypatch, text, told):
    monkeypatch.setenv("FAL_ACCOUNTS", text)

    with pytest.raises(SettingsError) as error:
        Settings.read(fal_key="a:1")

    for fault in told:
        assert fault in str(error.value)
    assert "hunter2" not in str(error.value)
