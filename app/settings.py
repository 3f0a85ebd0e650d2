"""What an operator can set: by environment, `.env`, or, for secrets, a file named by `<NAME>_FILE`."""

import json
import os
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Self, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)


class SettingsError(Exception):
    """Every fault of the settings, one line each, in plain words."""


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a full address such as https://callsheet.example.com")
    return value.rstrip("/")


def _database_url(value: SecretStr) -> SecretStr:
    scheme, _, rest = value.get_secret_value().partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"} or not rest:
        raise ValueError("must look like postgresql://user:password@host:5432/name")
    return SecretStr(f"postgresql+psycopg://{rest}")


def _header_safe(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("must be one word, as fal.ai/dashboard/keys shows it")
    return SecretStr(key)


def _storage_url(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme not in {"s3", "gs", "az", "file"} or not rest.strip("/"):
        raise ValueError(
            "must look like s3://bucket/folder, gs://bucket/folder, az://container/folder or file:///folder"
        )
    return value.rstrip("/")


def _networks(value: str) -> str:
    try:
        return ",".join(str(ip_network(text.strip())) for text in value.split(","))
    except ValueError:
        raise ValueError("must be networks such as 10.0.0.0/8,fd00::/8") from None


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < 32:
        raise ValueError("must have 32 characters or more, such as `openssl rand -hex 32` makes")
    return value


def _json_object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value, object_pairs_hook=_each_once)
    except ValueError as error:
        # What a parser says of broken JSON may quote it.
        said = str(error) if isinstance(error, _Twice) else 'must be JSON such as {"studio": {"key": "…"}}'
        raise ValueError(said) from None
    return found


class _Twice(ValueError):
    """A name is there twice, and the later one would silently win."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise _Twice(f"{', '.join(repeated)} is there twice")
    return dict(pairs)


def _origins(value: str) -> str:
    origins = [part.strip().rstrip("/") for part in value.split(",") if part.strip()]
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query):
            raise ValueError("must be origins such as https://app.example.com, with commas between, or *")
    if not origins:
        raise ValueError("must name an origin such as https://app.example.com")
    return ",".join(origins)


FalKey = Annotated[SecretStr, AfterValidator(_header_safe)]
Origins = Annotated[str, AfterValidator(_origins)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Networks = Annotated[str, AfterValidator(_networks)]
LinkSecret = Annotated[SecretStr, AfterValidator(_long_enough)]
StorageUrl = Annotated[str, AfterValidator(_storage_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
DEFAULT: Final = "default"
"""The fal account that FAL_KEY alone stands for."""


class FalAccountSetting(BaseModel):
    """One of several fal accounts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: FalKey
    at_once: Count | None = None


AccountName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
FalAccounts = Annotated[dict[AccountName, FalAccountSetting] | None, NoDecode, BeforeValidator(_json_object)]
# What fal sent is the evidence in a dispute about a bill; a week is the least that helps anybody. `verify` counts on
# a week, too: it is how far back it looks for what must not have been pruned.
LEAST_DAYS: Final = 7
Days = Annotated[int, Field(ge=LEAST_DAYS, le=36500)]


class Settings(BaseSettings):
    """Everything that can be set; built once at start and handed down."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True, validate_default=True
    )

    database_url: DatabaseUrl | None = Field(
        default=None, description="Postgres to use; without it `callsheet up` runs one of its own in DATA"
    )
    database_pool: Count = Field(
        default=10, description="Connections a process keeps to Postgres, and as many again for what goes in sets"
    )
    database_pooler: bool = Field(
        default=False, description="A transaction-mode pooler stands before Postgres: prepare no statements"
    )
    data: Path = Field(default=Path(".callsheet"), description="Folder for the embedded Postgres and kept files")
    # Not HOST: shells and toolchains set that one to the machine's name, or its kind.
    bind: str = Field(default="127.0.0.1", description="Address the HTTP server listens on")
    port: int = Field(default=8000, ge=1, le=65535, description="Port the HTTP server listens on")
    public_url: HttpUrl | None = Field(
        default=None, description="How fal reaches this service for webhooks; without it fal is asked instead"
    )
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log line")
    log_json: bool | None = Field(default=None, description="JSON logs; default: unless at a terminal")

    fal_key: FalKey | None = Field(default=None, description="Key of the fal account that pays, called `default`")
    fal_at_once: Count | None = Field(default=None, description="Jobs at fal at once on that account; default: no cap")
    fal_accounts: FalAccounts = Field(
        default=None, description='More fal accounts, as JSON: {"studio": {"key": "…", "at_once": 20}}'
    )
    fal_queue_url: HttpUrl = Field(default="https://queue.fal.run", description="fal's queue")
    fal_api_url: HttpUrl = Field(
        default="https://api.fal.ai/v1", description="fal's Platform API, which knows what became of lost submits"
    )
    fal_rest_url: HttpUrl = Field(default="https://rest.fal.ai", description="Where uploads to fal begin")
    fal_jwks_url: HttpUrl = Field(
        default="https://rest.fal.ai/.well-known/jwks.json", description="Keys that sign fal's webhooks"
    )
    fal_user_id: str | None = Field(
        default=None,
        description="Take webhooks only if signed for these fal users, with commas; default: any that fal signed",
    )
    fal_timeout_s: Seconds = Field(default=30.0, description="How long one call to fal may take")
    fal_priority: str = Field(default="normal", pattern="^(normal|low)$", description="Place in fal's own queue")

    fal_no_retry: bool = Field(
        default=False, description="Have fal try each request once; it tries again by itself otherwise"
    )
    fal_no_fallback: bool = Field(
        default=False,
        description="Have fal never make a video with another model or provider in place of a failing one",
    )
    tenant_at_once: Count | None = Field(
        default=None, description="Jobs of one tenant at fal at once, if it has no cap of its own; default: no cap"
    )

    catalog: Path | None = Field(default=None, description="Folder with more models and prices, or changed ones")
    allow_private_outputs: bool = Field(
        default=False, description="Read results from private addresses too; for the simulator only"
    )

    storage_url: StorageUrl | None = Field(
        default=None,
        description="Where results are kept, as s3://bucket/folder, gs://… or az://…; default: a folder in DATA",
    )
    output_limit_bytes: Count = Field(default=2_000_000_000, description="Largest file of a result that is kept")

    upload_limit_bytes: Count = Field(default=100_000_000, description="Largest file taken for a job's input")
    data_uri_limit_bytes: Count = Field(
        default=10_000_000, description="Most bytes that the data: URIs of one order may stand for together"
    )
    files_limit: Count = Field(default=10_000, description="Most files for inputs that a tenant may keep")
    files_limit_bytes: Count = Field(
        default=20_000_000_000, description="Most bytes that a tenant's files for inputs may take together"
    )
    files_kept_days: Annotated[int, Field(gt=0, le=36_500)] = Field(
        default=30, description="Days after its last order until a file for inputs is deleted"
    )

    link_secret: LinkSecret | None = Field(
        default=None, description="Signs links to kept results; without it a key is made once and kept in Postgres"
    )

    callback_allow_networks: Networks | None = Field(
        default=None, description="Private networks that callbacks may go to, as 10.0.0.0/8,192.168.1.7/32"
    )
    callback_at_once: Count = Field(default=32, description="Callbacks a worker has under way at once")
    callback_timeout_s: Seconds = Field(default=15.0, description="How long a caller has to answer a callback")
    callback_disable_after_s: Seconds = Field(
        default=432_000.0, description="How long nothing gets through before an endpoint is no longer called"
    )

    cors_origins: Origins | None = Field(
        default=None, description="Origins of pages that may call this service with a token, with commas between; or *"
    )
    hsts_s: Count | None = Field(
        default=None, description="Tell browsers to use https only, for so many seconds; needs an https PUBLIC_URL"
    )
    key_requests_per_minute: Count | None = Field(
        default=None, description="Requests a minute for a key without a limit of its own; default: no limit"
    )
    token_requests_per_minute: Count = Field(default=300, description="Requests a minute for a browser token")
    failures_per_minute: Count = Field(
        default=60, description="Requests a minute without a valid key that are answered 401, per address; then 429"
    )

    body_limit_bytes: Count = Field(
        default=1_000_000, description="Largest request body taken, not counting data: URIs and uploads"
    )
    webhook_limit_bytes: Count = Field(default=1_000_000, description="Largest webhook body taken")
    slow_request_s: Seconds = Field(
        default=30.0,
        description="How long a client may take over a request's head, over its body beyond 10,000 bytes a second, "
        "and take less than that of its answer",
    )
    keep_alive_s: Count = Field(
        default=5, description="How long a connection without a request is kept; behind a proxy, longer than it does"
    )
    processes: Count = Field(
        default=1,
        description="API processes behind one port; each has its own DATABASE_POOL, and counts requests for itself",
    )
    streams_at_once: Count = Field(
        default=10_000, description="Event streams and waiting requests an API process serves at once"
    )
    streams_per_key: Count = Field(default=1_000, description="How many of them one key may have")
    dispatch_at_once: Count = Field(default=32, description="Submits to fal a worker has under way at once")
    reconcile_at_once: Count = Field(default=32, description="Questions to fal a worker has under way at once")
    rescue_at_once: Count = Field(default=8, description="Results a worker copies to our own storage at once")
    progress_s: Seconds = Field(default=5.0, description="Shortest pause between two questions to fal about one job")
    poll_s: Seconds = Field(default=1.0, description="How often a worker looks for work that nobody announced")
    watch_s: Seconds = Field(default=15.0, description="How often incidents are watched for")
    verify_every_s: Seconds = Field(default=86400.0, description="How often every promise is proved, as by `verify`")
    inbox_days: Days = Field(default=30, description="Days that webhooks from fal are kept, as they came; 7 or more")
    callbacks_days: Days = Field(
        default=30, description="Days that callbacks are kept, with every try, once taken or given up; 7 or more"
    )
    audit_days: Days = Field(default=400, description="Days that the audit log is kept; 7 or more")
    jobs_days: Days | None = Field(
        default=None,
        description="Days that ended jobs keep input, output and events, CALLBACKS_DAYS or more; default: for ever",
    )
    lease_s: Seconds = Field(default=90.0, description="How long a worker keeps what it took before others may take it")

    @model_validator(mode="after")
    def _leases_outlast_calls(self) -> Self:
        for name in ("fal_timeout_s", "callback_timeout_s"):
            if self.lease_s <= 2 * getattr(self, name):
                raise ValueError(
                    f"LEASE_S: must be more than twice {name.upper()}, or a slow call looks like a dead worker"
                )
        return self

    @model_validator(mode="after")
    def _jobs_outlast_their_callbacks(self) -> Self:
        if self.jobs_days is not None and self.jobs_days < self.callbacks_days:
            raise ValueError("JOBS_DAYS: can't be less than CALLBACKS_DAYS, for a callback needs the job it tells of")
        return self

    @model_validator(mode="after")
    def _accounts_have_one_name_each(self) -> Self:
        if self.fal_key is not None and DEFAULT in (self.fal_accounts or {}):
            raise ValueError("FAL_ACCOUNTS: default is the account of FAL_KEY; give another name, or leave FAL_KEY out")
        if self.fal_key is None and self.fal_accounts and self.fal_at_once is not None:
            raise ValueError("FAL_AT_ONCE: is about the account of FAL_KEY; the others have an at_once of their own")
        return self

    @property
    def has_fal(self) -> bool:
        """Whether there is a key for fal at all."""
        return self.fal_key is not None or bool(self.fal_accounts)

    def accounts(self) -> dict[str, tuple[str, int | None]]:
        """Every fal account by its name: its key, and how many jobs it may have at once."""
        named = {name: (one.key.get_secret_value(), one.at_once) for name, one in (self.fal_accounts or {}).items()}
        if self.fal_key is None and named:
            return named
        return {DEFAULT: (self.fal_key.get_secret_value() if self.fal_key else "", self.fal_at_once), **named}

    def callback_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The private networks that callbacks may go to."""
        return tuple(ip_network(text) for text in (self.callback_allow_networks or "").split(",") if text)

    @model_validator(mode="after")
    def _https_is_there_to_be_insisted_on(self) -> Self:
        if self.hsts_s is not None and not (self.public_url or "").startswith("https://"):
            raise ValueError("HSTS_S: needs a PUBLIC_URL with https, or browsers would find nobody")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the name is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code wins over the environment, that over `*_FILE`, that over `.env`."""
        return init_settings, env_settings, SecretFiles(settings_cls), dotenv_settings

    @classmethod
    def read(cls, **given: Any) -> Self:
        """
        The settings in force; *given* wins over environment and files.

        Raises SettingsError that names every fault at once.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError("\n".join(_plain(fault) for fault in error.errors(include_input=False))) from None

    def sources(self, **given: Any) -> dict[str, str]:
        """Where each setting in force came from: `given`, `environment`, `file`, `.env` or `default`."""
        places: list[tuple[str, dict[str, Any]]] = [
            ("given", given),
            ("environment", EnvSettingsSource(type(self))()),
            ("file", SecretFiles(type(self))()),
            (".env", DotEnvSettingsSource(type(self), env_file=self.model_config.get("env_file"))()),
        ]
        return {
            name: next((place for place, found in places if name in found), "default")
            for name in type(self).model_fields
        }


class SecretFiles(PydanticBaseSettingsSource):
    """Reads a secret from the file that `<NAME>_FILE` names, as container platforms mount them."""

    names: Final = ("database_url", "fal_accounts", "fal_key", "link_secret")

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """The text of the file, without the line end an editor adds."""
        path = os.environ.get(f"{field_name.upper()}_FILE") if field_name in self.names else None
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except OSError as error:
            raise SettingsError(
                f"{field_name.upper()}_FILE names {path}, which can't be read: {error.strerror}"
            ) from None

    def __call__(self) -> dict[str, Any]:
        """Every secret found in a file."""
        found = {name: self.get_field_value(None, name)[0] for name in self.names}
        return {name: value for name, value in found.items() if value is not None}


def _plain(fault: Any) -> str:
    name = ".".join(str(part) for part in fault["loc"]).upper()
    message = cast("str", fault["msg"]).removeprefix("Value error, ")
    if not name:
        return message
    return f"{name}: {message[0].lower()}{message[1:]}"
