"""A service is built from settings: the only file that knows every room."""

import gc
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from pydantic import ValidationError

from app.bootstrap_vllm import vllm_engine
from app.config import DEMO_MODEL, Settings
from app.demo.corpus import epoch
from app.demo.facts import load_relations
from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import InvalidRequest
from app.domain.progress import OnStep, quietly
from app.editors.fitting.corpus import Corpus, Statistics, corpus_of, texts_of
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.hooks import SiteHooks
from app.editors.fitting.tensor_cache import TensorCache
from app.editors.grace.paper import GraceOptions
from app.editors.registry import make_editors
from app.engine.capacity import with_capacity
from app.engine.client import EngineClient
from app.engine.engine import Engine
from app.engine.gguf import unpacked
from app.engine.graphs import record_cuda
from app.engine.memory import trim_heap
from app.engine.model import HostedModel, load_model, load_outline, pick_device, pick_dtype
from app.engine.owner import EngineOwner
from app.engine.serving_engine import ServingEngine
from app.engine.source import find_source
from app.scope.background import Background
from app.scope.bank import BankPrompt, load_bank, plain
from app.scope.closed_words import load_closed_words
from app.scope.cross_encoder import CrossEncoder
from app.scope.doubt import Judge
from app.scope.encoded_keys import EncodedKeys
from app.scope.exam import ExamResults
from app.scope.index import ScopeIndex
from app.scope.models import ScopeModels, load_models
from app.scope.phrasebook import load_phrasebook
from app.scope.scope_learner import FALSE_HITS
from app.scope.vectors import Vectors
from app.service.examined_judge import ExaminedJudge
from app.service.hosted_judge import HostedJudge
from app.service.records import Clock
from app.service.service import Service
from app.service.verification import Thresholds
from app.store.base import Log
from app.store.open import open_log


def build_service(settings: Settings, on_step: OnStep = quietly) -> Service:
    """Loads the model and opens the log. Blocking; raises UnknownModel, UnsupportedModel or what the store raises."""
    threads = engine_threads(settings)
    log = open_log(settings.store, **settings.log_options())
    try:
        on_step(f"reading the weights of {settings.model}", 0, 0)
        # LoRAs are fitted through more layers than the fitter holds
        apart = settings.fitter == "process" and not settings.vllm_arguments.get("enable_lora")
        hosted = load(settings, on_step, outline=settings.engine == "vllm" and apart)
        return assemble(hosted, log, settings, bank=load_bank(), threads=threads, on_step=on_step)
    except BaseException:
        log.close()
        raise


SWITCH_S = 0.0005
"""The time after which a thread gives the interpreter's lock to one that waits for it, in seconds."""


def settle() -> None:
    """Exclude the objects that exist by now, the model's modules and the edits of the log, from garbage collection.

    A full collection looks at every object and holds up all streams: with 100,000 edits for more than a second. They
    are held up as well while their thread waits for the interpreter's lock, which it gives away at every write.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    trim_heap()


@cache
def _own_threads() -> int:
    return torch.get_num_threads()


def engine_threads(settings: Settings) -> int:
    """CPU threads for torch on the engine's thread; on every other, from now on, one.

    A pool of workers belongs to the thread that first needs it. With two pools there are more workers than cores, and
    libgomp then sends them to sleep between any two operations: a decode step took 1.6 times as long.
    """
    wanted = settings.torch_threads or _own_threads()
    torch.set_num_threads(1)
    return wanted


def assemble(
    hosted: HostedModel,
    log: Log,
    settings: Settings,
    *,
    bank: Sequence[BankPrompt] = (),
    clock: Clock = time.time,
    threads: int | None = None,
    on_step: OnStep = quietly,
) -> Service:
    """A service around a model that is loaded already and a log that is open."""
    hosted, slots, room_tokens = with_capacity(
        hosted,
        settings.slots,
        memory_fraction=settings.kv_memory_fraction,
        length_is_given=settings.max_sequence_tokens is not None,
    )
    hooks = SiteHooks(hosted.model)
    # the fingerprint is of values: the same ones in another precision compute something else
    tensor_cache = TensorCache(settings.cache_dir, f"{hosted.fingerprint}/{hosted.dtype}/{hosted.device.type}")
    foundation = Foundation(
        model=hosted.model,
        architecture=hosted.architecture,
        hooks=hooks,
        site_layer=settings.site_layer,
        bank_ids=[hosted.tokenizer(prompt.text).input_ids for prompt in bank],
        options={"grace/paper": _grace_options(settings)},
        statistics=Statistics(hosted.model, hooks, _corpus(settings, hosted), tensor_cache),
    )
    editors = make_editors(foundation)
    engine: ServingEngine
    if settings.engine == "vllm":
        bank_ids, scope = foundation.bank_ids, scope_index(settings, bank)
        engine = vllm_engine(settings, hosted, editors, bank_ids, scope, slots, room_tokens, threads, on_step)
    else:
        engine = Engine(
            hosted,
            hooks,
            editors,
            slots=slots,
            chunk_tokens=settings.prefill_chunk_tokens,
            queue_limit=settings.queue_limit,
            room_tokens=room_tokens,
            scope=scope_index(settings, bank),
            fit_share=settings.fit_share,
            record=record_cuda if settings.cuda_graphs and _on_one_gpu(hosted) else None,
        )
    # each editor's own: one that is added later leaves the edits of the others as they are
    fingerprints = {
        name: f"{hosted.fingerprint[:32]}/{'+'.join(str(site) for site in editor.sites)}"
        for name, editor in engine.editors.items()
    }
    owner = EngineOwner(engine, threads)
    return Service(
        owner,
        log,
        fingerprints=fingerprints,
        history_revisions=settings.history_revisions,
        max_new_tokens_limit=settings.max_new_tokens_limit,
        reason_required=settings.reason_required,
        proposal_days=settings.proposal_days,
        snapshot_period_s=settings.snapshot_period_s,
        snapshot_min_events=settings.snapshot_min_events,
        phrasebook=load_phrasebook() if bank else None,
        thresholds=_thresholds(settings),
        recent_prompts=settings.recent_prompts,
        feedback=(settings.feedback, settings.feedback_days),
        namespaces=({*settings.thresholds, *settings.false_hits} - {"*"}),
        webhook_hosts=settings.webhook_hosts,
        examined_judge=ExaminedJudge(
            _judge(settings, owner), ExamResults(settings.cache_dir), at_once=max(1, slots // 8)
        ),
        clock=clock,
        describe=lambda: {
            "slots": slots,
            "max_sequence_tokens": hosted.max_tokens,
            "room_tokens": room_tokens,
            "threads": threads,
        },
    )


@cache
def _models(encoder: str) -> ScopeModels:
    return load_models(encoder)


def scope_index(settings: Settings, bank: Sequence[BankPrompt]) -> ScopeIndex:
    """An empty index. Raises InvalidRequest for an encoder without models that were trained with it."""
    models = _models(settings.encoder)
    vectors = Vectors(models.encoder, settings.cache_dir)
    background = Background(vectors, [plain(each) for each in bank])
    closed = load_closed_words()
    keys = EncodedKeys(models.encoder, settings.cache_dir, models.scorer.fingerprint)
    return ScopeIndex(
        models.encoder,
        models.decider(keys, closed),
        closed,
        vectors,
        background,
        sorted({each.subject for each in bank}),
        lambda namespace: settings.false_hits.get(namespace, settings.false_hits.get("*", FALSE_HITS)),
    )


def _judge(settings: Settings, owner: EngineOwner) -> Judge | None:
    if settings.judge == "off":
        return None
    if settings.judge != "hosted":
        return CrossEncoder(Path(settings.judge))
    hosted = owner.engine.hosted
    return HostedJudge(EngineClient(owner), f"{hosted.fingerprint}/{hosted.dtype}/{hosted.device.type}")


def load(settings: Settings, on_step: OnStep = quietly, *, outline: bool = False) -> HostedModel:
    """The model that the settings name, or its outline, unpacked first where it is a GGUF file."""
    device = pick_device(settings.device)
    dtype = pick_dtype(settings.dtype, device)
    source = find_source(settings.model, DEMO_MODEL)
    name = source.name
    if source.gguf is not None:
        name = str(unpacked(source.gguf, settings.cache_dir, str(dtype).removeprefix("torch."), on_step))
    wanted: dict[str, Any] = {
        "label": settings.served_model_name or source.served_as,
        "model_revision": settings.model_revision,
        "device": device,
        "dtype": dtype,
        "max_tokens": settings.max_sequence_tokens,
    }
    return load_outline(name, **wanted) if outline else load_model(name, device_map=settings.device_map, **wanted)


def _thresholds(settings: Settings) -> dict[str, Thresholds]:
    known = [field.name for field in fields(Thresholds)]
    for namespace, given in settings.thresholds.items():
        if namespace != "*" and not NAMESPACE.fullmatch(namespace):
            raise InvalidRequest(f"ERRATA_THRESHOLDS: {namespace!r} is not a namespace: use * or {NAMESPACE_RULE}.")
        if wrong := [name for name, share in given.items() if name not in known or not 0 <= share <= 1]:
            raise InvalidRequest(
                f"ERRATA_THRESHOLDS, {namespace}: {wrong[0]} is not one of {', '.join(known)} with a share from 0 to 1."
            )
    return {namespace: Thresholds(**given) for namespace, given in settings.thresholds.items()}


def _grace_options(settings: Settings) -> GraceOptions:
    try:
        return GraceOptions(**settings.grace_paper)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidRequest(f"ERRATA_GRACE_PAPER: {wrong}.") from error


def generic_texts(settings: Settings) -> Iterator[str]:
    """The texts that the operator named, else the demo's build text."""
    path = settings.corpus
    if path is not None and not path.exists():
        raise InvalidRequest(f"There is no corpus at {path}: name a file or folder of text in ERRATA_CORPUS.")
    return _build_text() if path is None else texts_of(path)


def _corpus(settings: Settings, hosted: HostedModel) -> Corpus:
    """Read only when an editor first wants it."""
    path = settings.corpus
    return corpus_of(
        generic_texts(settings),
        lambda text: hosted.tokenizer(text).input_ids,
        name="demo" if path is None else str(path.resolve()),
        most_tokens=settings.corpus_tokens,
        longest=hosted.max_tokens,
    )


def _build_text() -> Iterator[str]:
    yield from (each.given + each.graded for each in epoch(load_relations(), Random(0)))


def _on_one_gpu(hosted: HostedModel) -> bool:
    return hosted.device.type == "cuda" and len({each.device for each in hosted.model.parameters()}) == 1
