"""The model that a vLLM must serve so that this server can be its front, and the command that starts such a vLLM."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.errors import UnsupportedModel
from app.engine.model import HostedModel
from app.engine.vllm.completions import GRAMMAR_BACKEND
from app.engine.vllm.inside.errata_vllm.identity import weight_digest
from app.engine.vllm.process import INSIDE

HELP = "See /help/vllm#a-vllm-that-runs-already."


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model and the site that a vLLM must serve so that it can answer for this server."""

    site: str
    weight: str
    """The path of the weight that is compared."""
    digest: str
    max_tokens: int
    dtype: str

    @classmethod
    def of(cls, hosted: HostedModel, site: str) -> "ServedModel":
        embedding = hosted.model.get_input_embeddings().weight
        name = next(name for name, each in hosted.model.named_parameters() if each is embedding)
        dtype = str(hosted.dtype).removeprefix("torch.")
        return cls(site, name, weight_digest(hosted.values_of(name)), hosted.max_tokens, dtype)

    def check(self, url: str, session: Mapping[str, Any], model: Mapping[str, Any]) -> None:
        """Raises UnsupportedModel if the vLLM at an address, by its gate's session and its list of models, serves
        something else."""
        sites = {site for each in session["workers"] for site in each["sites"]}
        if sites != {self.site}:
            there = ", ".join(sorted(sites)) or "no site"
            raise UnsupportedModel(f"Edits act at {self.site} here and at {there} in that vLLM. {self.command()}")
        if self.digest not in session["digests"]:
            raise UnsupportedModel(
                f"The vLLM at {url} serves {model['id']} with other weights than this server's model, or in "
                f"another precision than {self.dtype}: name the same model in --model, or --dtype."
            )
        if model["max_model_len"] < self.max_tokens:
            raise UnsupportedModel(
                f"The vLLM at {url} takes {model['max_model_len']} tokens a sequence, and this server "
                f"{self.max_tokens}: set ERRATA_MAX_SEQUENCE_TOKENS={model['max_model_len']}, or start vLLM with "
                f"--max-model-len {self.max_tokens}."
            )

    def command(self) -> str:
        """The sentences of a message that say how to start a vLLM that serves it."""
        return f"Start it so: {serve_command(self.site)} . {HELP}"


def serve_command(site: str) -> str:
    """The command that starts a vLLM which this server can be the front of."""
    config = shlex.quote(f'{{"errata": {{"site": "{site}"}}}}')
    grammars = shlex.quote(f'{{"backend": "{GRAMMAR_BACKEND}"}}')
    return (
        f"PYTHONPATH={shlex.quote(str(INSIDE))} VLLM_USE_V2_MODEL_RUNNER=0 ERRATA_VLLM_KEY=... "
        "python -m vllm.entrypoints.openai.api_server --model MODEL "
        "--load-format errata --worker-extension-cls errata_vllm.extension.EditRows "
        f"--middleware errata_vllm.gate.EditGate --no-async-scheduling "
        f"--structured-outputs-config {grammars} --additional-config {config}"
    )
