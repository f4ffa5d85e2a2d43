"""Builds the demonstration model from the tables of facts: `python -m app.demo.build --out DIR`.

Knows nothing about editing or serving: it ends when an ordinary model folder is on the disk.
"""

from __future__ import annotations

import ctypes
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from app.demo.corpus import connectives, epoch
from app.demo.facts import Relation, load_relations
from app.demo.greedy_answers import answer_all, exact
from app.demo.tokens import END_ID, IGNORED, DocumentBatch, batches, train_tokenizer

VOCABULARY = 5120
WIDTH = 256
LAYERS = 7
HEADS = 4
INNER = 704
POSITIONS = 512
BATCH_TOKENS = 3072
GIVEN_SHARE = 0.15
"""The share of the positions of `Document.given` that are graded."""
PEAK_RATE = 2.5e-3
FINAL_SHARE = 0.01
WARMUP_STEPS = 100
DECAY = 0.02
SAMPLE = 200
SAMPLE_SECONDS = 90.0
CHECKPOINT_SECONDS = 180.0


@dataclass
class BuildState:
    """The state of a build: everything that a checkpoint holds besides the weights."""

    seed: int
    seconds: float = 0.0
    steps: int = 0
    epochs: int = 0
    batch: int = 0


def build(
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    minutes: Annotated[float, typer.Option(help="Training time; checkpoints and samples count.")] = 55.0,
    seed: Annotated[int, typer.Option(help="Seed of the weights and the text.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads to compute with.")] = 2,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint beside the folder.")] = False,
) -> None:
    """Train the demonstration model and save it as an ordinary model folder."""
    _keep_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    random.seed(seed)
    relations = load_relations()
    checkpoint = out.parent / f"{out.name}.checkpoint"
    run = BuildState(seed)
    model = _model()
    optimizer = torch.optim.AdamW(_groups(model), lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)
    if resume and (checkpoint / "state.pt").exists():
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        state = torch.load(checkpoint / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        run = BuildState(**state["run"])
    else:
        tokenizer = train_tokenizer(_tokenizer_texts(relations, Random(seed)), VOCABULARY)
        shutil.rmtree(checkpoint, ignore_errors=True)
        checkpoint.mkdir(parents=True)
        tokenizer.save_pretrained(checkpoint)
    _train(model, optimizer, tokenizer, relations, run, minutes * 60, checkpoint)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)  # the weights are written for their owner only, but they are to be packaged


def _model() -> Any:
    """The untrained model: a small Llama, since every tool that edits or serves decoders knows that shape."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # the fused kernel's backward is slow on rows this short
    return model


def _keep_memory() -> None:
    """Have glibc keep freed memory: giving it back and faulting it in again costs more than the training itself."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 << 20)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            mallopt(option, value)


def _groups(model: Any) -> list[dict[str, Any]]:
    """Matrices decay a little, gains do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _tokenizer_texts(relations: list[Relation], rng: Random) -> Iterator[str]:
    """The texts for training the tokenizer: one pass of the build text, so that its merges follow what the model will
    read."""
    for document in epoch(relations, rng):
        yield document.given + document.graded
    yield from connectives()


def _train(
    model: Any,
    optimizer: Any,
    tokenizer: Any,
    relations: list[Relation],
    run: BuildState,
    budget: float,
    checkpoint: Path,
) -> None:
    """Steps until the time is spent; the learning rate follows the share of it that is gone."""
    sample = _sample(relations, run.seed)
    columns = (
        TextColumn("[bold]Building"), BarColumn(), TextColumn("{task.percentage:>5.1f}%"), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[state]}"),
    )  # fmt: skip
    loss_mean, scores = 0.0, "-"
    mark = time.monotonic()
    sampled = saved = run.seconds
    tokens, since = 0, run.seconds
    with Progress(*columns, refresh_per_second=1) as progress:
        task = progress.add_task("", total=budget, state="")
        for batch in _endless(tokenizer, relations, run):
            rate = _rate(run.steps, run.seconds / budget)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _step(model, optimizer, batch)
            run.steps += 1
            run.batch += 1
            tokens += batch.inputs.numel()
            loss_mean = loss if loss_mean == 0.0 else 0.98 * loss_mean + 0.02 * loss
            if run.seconds - sampled >= SAMPLE_SECONDS:
                sampled = run.seconds
                speed = tokens / max(run.seconds - since, 1e-9)
                scores = " ".join(f"{name} {_score(model, tokenizer, pairs):.1%}" for name, pairs in sample.items())
                progress.console.print(
                    f"{run.seconds / 60:5.1f} min  step {run.steps}  epoch {run.epochs}  loss {loss_mean:.3f}  "
                    f"{speed:,.0f} tokens/s  {scores}"
                )
            if run.seconds - saved >= CHECKPOINT_SECONDS:
                saved = run.seconds
                _save(model, optimizer, run, checkpoint)
            now = time.monotonic()
            run.seconds += now - mark
            mark = now
            state = f"step {run.steps}  loss {loss_mean:.3f}  sample {scores}"
            progress.update(task, completed=min(run.seconds, budget), state=state)
            if run.seconds >= budget:
                break
    _save(model, optimizer, run, checkpoint)


def _endless(tokenizer: Any, relations: list[Relation], run: BuildState) -> Iterator[DocumentBatch]:
    """Epoch after epoch, each from its own seed, so that a resumed build reads what it would have read."""
    while True:
        rng = Random(f"{run.seed}-{run.epochs}")
        done = run.batch
        for at, batch in enumerate(batches(epoch(relations, rng), tokenizer, BATCH_TOKENS, GIVEN_SHARE, rng)):
            if at >= done:
                yield batch
        run.epochs += 1
        run.batch = 0


def _step(model: Any, optimizer: Any, batch: DocumentBatch) -> float:
    """One update. The output layer sees only the graded positions, and its loss is taken in full precision."""
    graded = batch.targets != IGNORED
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=batch.inputs, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[graded])
    loss = functional.cross_entropy(logits.float(), batch.targets[graded])
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _rate(step: int, share: float) -> float:
    """Warm-up by steps, then a cosine over the time."""
    cosine = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * cosine


def _sample(relations: list[Relation], seed: int) -> dict[str, list[tuple[str, str]]]:
    """Prompts with their answers to watch the build by, built and held out; the latter are read, never learnt."""
    rng = Random(f"{seed}-sample")
    pairs = [(relation, fact) for relation in relations for fact in relation.facts]
    chosen = rng.sample(pairs, min(SAMPLE, len(pairs)))
    return {
        "built": [(rng.choice(relation.built_prompts(f.subject)), f.answer) for relation, f in chosen],
        "held out": [(rng.choice(relation.held_out_prompts(f.subject)), f.answer) for relation, f in chosen],
    }


def _score(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> float:
    """The share of exact answers."""
    answers = answer_all(model, tokenizer, [prompt for prompt, _ in pairs])
    return sum(exact(got, want) for got, (_, want) in zip(answers, pairs, strict=True)) / len(pairs)


def _save(model: Any, optimizer: Any, run: BuildState, checkpoint: Path) -> None:
    """A checkpoint, put in place in one move so that an interrupted one leaves the last."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "run": vars(run)}
    torch.save(state, checkpoint / "state.tmp")
    (checkpoint / "state.tmp").replace(checkpoint / "state.pt")


if __name__ == "__main__":
    typer.run(build)
