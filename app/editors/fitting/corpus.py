"""Generic text and its statistics at a site: second moments, and a sample of inputs.

Statistics are computed once, one micro-step at a time, and cached under the names of the model and of the text. This
module knows no editor.
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.domain.errors import InvalidRequest
from app.editors.base import FitProgress, Site
from app.editors.fitting.hooks import Act, SiteHooks
from app.editors.fitting.tensor_cache import TensorCache
from app.editors.fitting.view import tokens_per_pass

EXTENSIONS = (".txt", ".md", ".jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Generic text as token ids, read when it is first needed. `name` identifies the text and the tokenizer."""

    name: str = "none"
    documents: Callable[[], Sequence[Sequence[int]]] = tuple


def texts_of(path: Path) -> Iterator[str]:
    """Yield the texts of a file, or of a folder's .txt, .md and .jsonl files in the order of their names.

    Blank lines separate texts. In a .jsonl file each line is an object with a text under the key `text`. Raises
    InvalidRequest if the folder has no such file, or a file is absent or cannot be read.
    """
    files = sorted(each for each in path.rglob("*") if each.suffix in EXTENSIONS) if path.is_dir() else [path]
    if not files:
        raise InvalidRequest(
            f"The folder {path} holds no text. Put {', '.join(EXTENSIONS)} files there, or name another folder."
        )
    for file in files:
        try:
            content = file.read_text(encoding="utf-8")
            if file.suffix == ".jsonl":
                texts = [str(json.loads(line)["text"]) for line in content.splitlines() if line.strip()]
            else:
                texts = content.split("\n\n")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(f"The corpus file {file} cannot be read ({error}). Save it as UTF-8 text.") from error
        yield from (text.strip() for text in texts if text.strip())


def corpus_of(
    texts: Iterable[str], encode: Callable[[str], Sequence[int]], *, name: str, most_tokens: int, longest: int
) -> Corpus:
    """Return texts as a corpus of at most `most_tokens` tokens, give or take one text. Each text is cut after `longest`
    tokens."""

    @lru_cache(maxsize=1)
    def documents() -> Sequence[Sequence[int]]:
        rows: list[Sequence[int]] = []
        tokens = 0
        for text in texts:
            ids = encode(text)[:longest]
            rows.append(ids)
            tokens += len(ids)
            if tokens >= most_tokens:
                break
        return rows

    return Corpus(name=f"{name}/{most_tokens}", documents=documents)


class Statistics:
    """Statistics of one frozen model over one corpus."""

    def __init__(self, model: Any, hooks: SiteHooks, corpus: Corpus, cache: TensorCache | None = None) -> None:
        self._model, self._hooks, self._corpus = model, hooks, corpus
        self._cache = cache or TensorCache()
        self._computed: dict[tuple[str, ...], dict[str, Tensor]] = {}

    @property
    def corpus(self) -> str:
        """The name of the corpus."""
        return self._corpus.name

    def moments(self, sites: Sequence[Site]) -> Generator[FitProgress, None, list[Tensor]]:
        """Return the uncentred second moment E[x x'] (D_in, D_in) fp32 of each site's input over the corpus.

        The first token of each document is left out, because many models put an attention sink there, far from all
        other states.
        """
        names = [str(site) for site in sites]

        def compute() -> Generator[FitProgress, None, dict[str, Tensor]]:
            sums: dict[str, Tensor] = {}
            count = 0
            for progress, inputs in self._passes(sites):
                for name, rows in inputs.items():
                    sums[name] = sums.get(name, 0) + (rows.T @ rows).double()
                count += len(next(iter(inputs.values())))
                yield progress
            return {name: (total / count).float() for name, total in sums.items()}

        computed = yield from self._once("moments", names, compute)
        return [computed[name] for name in names]

    def inputs(self, site: Site, most: int) -> Generator[FitProgress, None, Tensor]:
        """Return the site's input (N, D_in) fp32 at up to `most` tokens that are spread evenly over the corpus."""

        def compute() -> Generator[FitProgress, None, dict[str, Tensor]]:
            sampled: list[Tensor] = []
            for progress, inputs in self._passes([site]):
                sampled.append(inputs[str(site)].cpu())
                yield progress
            rows = torch.cat(sampled)
            return {"rows": rows[:: max(1, -(-len(rows) // most))].clone()}

        computed = yield from self._once(f"inputs-{most}", [str(site)], compute)
        return computed["rows"]

    def _once(
        self,
        statistic: str,
        sites: Sequence[str],
        compute: Callable[[], Generator[FitProgress, None, dict[str, Tensor]]],
    ) -> Generator[FitProgress, None, dict[str, Tensor]]:
        """Return a statistic from memory, else from the cache, else compute it."""
        inputs = (self._corpus.name, *sites)
        if (statistic, *inputs) not in self._computed:
            tensors = self._cache.load(statistic, inputs)
            if tensors is None:
                tensors = yield from compute()
                self._cache.store(statistic, inputs, tensors)
            device = next(self._model.parameters()).device
            self._computed[statistic, *inputs] = {name: tensor.to(device) for name, tensor in tensors.items()}
        return self._computed[statistic, *inputs]

    def _passes(self, sites: Sequence[Site]) -> Generator[tuple[FitProgress, dict[str, Tensor]], None, None]:
        """Yield each site's input (N, D_in) at every token but the first, one batch of documents at a time."""
        documents = sorted((each for each in self._corpus.documents() if len(each) > 1), key=len)
        if not documents:
            raise InvalidRequest(
                "This editor needs generic text for the statistics of typical activations, and there is none: name a "
                "file or folder of text in ERRATA_CORPUS."
            )
        for site in sites:
            self._hooks.attach(site)
        device = next(self._model.parameters()).device
        batches = _batches(documents, tokens_per_pass(device))
        for step, batch in enumerate(batches, 1):
            ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
            real = torch.zeros(ids.shape, dtype=torch.bool)
            for row, document in enumerate(batch):
                ids[row, : len(document)] = torch.tensor(document)
                real[row, 1 : len(document)] = True
            inputs = self._read(sites, ids.to(device), real.to(device))
            yield FitProgress(step=step, steps=len(batches), loss=float("nan")), inputs

    @torch.no_grad()
    def _read(self, sites: Sequence[Site], ids: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Return each site's input (N, D_in) at the N tokens of ids (B, T) that the mask `real` (B, T) marks."""
        inputs: dict[str, Tensor] = {}

        def reader(site: Site) -> Act:
            def act(h_in: Tensor, h_out: Tensor) -> Tensor:
                inputs[str(site)] = h_in[real].float()
                return h_out

            return act

        with self._hooks.applying(len(ids), {site: [reader(site)] for site in sites}):
            # Padding is to the right of every token that is read, so that the causal mask suffices.
            self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
        return inputs


def _batches(documents: Sequence[Sequence[int]], most_tokens: int) -> list[Sequence[Sequence[int]]]:
    """Group documents, shortest first, into batches of at most `most_tokens` tokens, padding included."""
    batches: list[Sequence[Sequence[int]]] = []
    first = 0
    for index, document in enumerate(documents):
        if (index + 1 - first) * len(document) > most_tokens and index > first:
            batches.append(documents[first:index])
            first = index
    return [*batches, documents[first:]]
