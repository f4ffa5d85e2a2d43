"""Generic text, and what it looks like at a site: second moments and sampled inputs, for editors that need either.

Statistics are computed once, a micro-step at a time, and kept under the names of the model and of the text. Knows no
editor.
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
from app.editors.base import Progress, Site
from app.editors.fitting.hooks import Act, SiteHooks
from app.editors.fitting.tensor_cache import Kept

TOKENS_AT_ONCE = 4096
SUFFIXES = (".txt", ".md", ".jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Generic text as token ids, read when it is first needed. `name` stands for text and tokenizer."""

    name: str = "none"
    documents: Callable[[], Sequence[Sequence[int]]] = tuple


def texts_of(path: Path) -> Iterator[str]:
    """Texts of a file, or of a folder's .txt, .md and .jsonl files in the order of their names.

    A blank line parts texts; a line of a .jsonl file is one, under the key `text`. Raises InvalidRequest for what is
    not there or cannot be read so.
    """
    files = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise InvalidRequest(f"The folder {path} holds no text: {', '.join(SUFFIXES)} files are read.")
    for file in files:
        try:
            whole = file.read_text(encoding="utf-8")
            if file.suffix == ".jsonl":
                found = [str(json.loads(line)["text"]) for line in whole.splitlines() if line.strip()]
            else:
                found = whole.split("\n\n")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(f"The corpus file {file} cannot be read ({error}): it takes UTF-8 text.") from error
        yield from (text.strip() for text in found if text.strip())


def corpus_of(
    texts: Iterable[str], encode: Callable[[str], Sequence[int]], *, name: str, most_tokens: int, longest: int
) -> Corpus:
    """Texts in token ids: read when first wanted, cut at `longest`, until there are `most_tokens` in all."""

    @lru_cache(maxsize=1)
    def documents() -> Sequence[Sequence[int]]:
        found: list[Sequence[int]] = []
        tokens = 0
        for text in texts:
            ids = encode(text)[:longest]
            found.append(ids)
            tokens += len(ids)
            if tokens >= most_tokens:
                break
        return found

    return Corpus(name=f"{name}/{most_tokens}", documents=documents)


class Statistics:
    """Statistics of one frozen model over one corpus."""

    def __init__(self, model: Any, hooks: SiteHooks, corpus: Corpus, kept: Kept | None = None) -> None:
        self._model, self._hooks, self._corpus = model, hooks, corpus
        self._kept = kept or Kept()
        self._held: dict[tuple[str, ...], dict[str, Tensor]] = {}

    @property
    def corpus(self) -> str:
        return self._corpus.name

    def moments(self, sites: Sequence[Site]) -> Generator[Progress, None, list[Tensor]]:
        """E[x x'] (D_in, D_in) fp32 of each site's input, uncentred, over all tokens but each document's first.

        The first position is left out: many models put a sink there, far from all other states.
        """
        names = [str(site) for site in sites]

        def compute() -> Generator[Progress, None, dict[str, Tensor]]:
            sums: dict[str, Tensor] = {}
            count = 0
            for progress, found in self._passes(sites):
                for name, rows in found.items():
                    sums[name] = sums.get(name, 0) + (rows.T @ rows).double()
                count += len(next(iter(found.values())))
                yield progress
            return {name: (total / count).float() for name, total in sums.items()}

        held = yield from self._once("moments", names, compute)
        return [held[name] for name in names]

    def inputs(self, site: Site, most: int) -> Generator[Progress, None, Tensor]:
        """(N, D_in) fp32: the site's input at up to `most` tokens, spread evenly over the corpus."""

        def compute() -> Generator[Progress, None, dict[str, Tensor]]:
            kept: list[Tensor] = []
            for progress, found in self._passes([site]):
                kept.append(found[str(site)].cpu())
                yield progress
            rows = torch.cat(kept)
            return {"rows": rows[:: max(1, -(-len(rows) // most))].clone()}

        held = yield from self._once(f"inputs-{most}", [str(site)], compute)
        return held["rows"]

    def _once(
        self, what: str, names: Sequence[str], compute: Callable[[], Generator[Progress, None, dict[str, Tensor]]]
    ) -> Generator[Progress, None, dict[str, Tensor]]:
        marks = (self._corpus.name, *names)
        if (what, *marks) not in self._held:
            held = self._kept.load(what, marks)
            if held is None:
                held = yield from compute()
                self._kept.store(what, marks, held)
            device = next(self._model.parameters()).device
            self._held[what, *marks] = {name: tensor.to(device) for name, tensor in held.items()}
        return self._held[what, *marks]

    def _passes(self, sites: Sequence[Site]) -> Generator[tuple[Progress, dict[str, Tensor]], None, None]:
        """Each site's input at every token but the first, a batch of documents at a time."""
        documents = sorted((each for each in self._corpus.documents() if len(each) > 1), key=len)
        if not documents:
            raise InvalidRequest(
                "This editor needs generic text to know what usual activations look like, and there is none: name a "
                "file or folder of text in ERRATA_CORPUS."
            )
        for site in sites:
            self._hooks.attach(site)
        batches = _batches(documents)
        device = next(self._model.parameters()).device
        for step, batch in enumerate(batches, 1):
            ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
            real = torch.zeros(ids.shape, dtype=torch.bool)
            for row, document in enumerate(batch):
                ids[row, : len(document)] = torch.tensor(document)
                real[row, 1 : len(document)] = True
            found = self._read(sites, ids.to(device), real.to(device))
            yield Progress(step=step, steps=len(batches), loss=float("nan")), found

    @torch.no_grad()
    def _read(self, sites: Sequence[Site], ids: Tensor, real: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def reader(site: Site) -> Act:
            def act(h_in: Tensor, h_out: Tensor) -> Tensor:
                found[str(site)] = h_in[real].float()
                return h_out

            return act

        with self._hooks.applying(len(ids), {site: [reader(site)] for site in sites}):
            # pads stand right of all that is read, so the causal mask suffices
            self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
        return found


def _batches(documents: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
    """Documents, shortest first, as many at a time as TOKENS_AT_ONCE holds."""
    batches: list[Sequence[Sequence[int]]] = []
    first = 0
    for at in range(len(documents)):
        if (at + 1 - first) * len(documents[at]) > TOKENS_AT_ONCE and at > first:
            batches.append(documents[first:at])
            first = at
    return [*batches, documents[first:]]
