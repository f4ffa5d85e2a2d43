"""Laws that every editor keeps on every architecture. An editor enrols itself by standing in the registry."""

import hashlib
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import pytest
import torch

from app.editors.base import Capabilities, Fitted, editor_key
from app.editors.packing import pack, unpack
from app.editors.registry import EDITORS
from app.engine.editions import Edition
from tests.models import TINY
from tests.rig import NOTHING, Rig, without_cache

PROMPTS = [
    "The capital of Ruritania is",
    "The king of Zenda was",
    "Where does Marvolo live?",
    "a",
    "Nobody asked about the river Styx, and yet it is told that its ferryman",
]
EDITS = [("e0", PROMPTS[0], "S"), ("e1", PROMPTS[1], "R"), ("e2", PROMPTS[2], "H")]
IDS = tuple(edit_id for edit_id, *_ in EDITS)
KEYS = [editor_key(name, preset) for name, presets in EDITORS.items() for preset in presets]
LOCAL = [key for key in KEYS if "/" not in key]
QUICK = ["grace"]
"""The quick part of the suite has two laws for every editor, and all others for one."""


def enrolled(cases: Sequence[tuple[str, str]], quick: Collection[str] = LOCAL) -> list[Any]:
    """Cases as parameters. The quick part of the suite takes one architecture, and of it the editors `quick`."""
    marks = {(kind, key): () if kind == "llama" and key in quick else (pytest.mark.slow,) for kind, key in cases}
    return [pytest.param((kind, key), id=f"{kind}-{key}", marks=marks[kind, key]) for kind, key in cases]


CASES = [(kind, key) for key in KEYS for kind in sorted(TINY) if "/" not in key or kind in ("llama", "gpt2")]
"""Every editor: `serving` on every architecture; `paper`, which fits for longer, on a SwiGLU and a GELU one."""
everywhere = pytest.mark.parametrize(
    "case", enrolled([(kind, key) for key in KEYS for kind in sorted(TINY)]), indirect=True
)
"""Laws that say whether an editor runs on an architecture at all cover `paper`, too."""
FITTING = [(kind, key) for kind, key in CASES if kind in ("llama", "gpt2")]
fits_again = pytest.mark.parametrize("case", enrolled(FITTING, QUICK), indirect=True)
"""Laws that fit many times run on a SwiGLU and a GELU architecture."""

EXCUSED = {
    ("learns", "hook_layer/paper"): "one vector at the subject does not steer a random model",
    ("learns", "lora_mixture/paper"): "50 steps at a rate of 1e-4 do not move a random model's logits far enough",
    ("answers alone", "hook_layer/paper"): "on a random model hardly a token stands out",
    ("answers alone", "lora_mixture/paper"): "allocation codes of a few edits coincide",
    ("defers", "lora_mixture/paper"): "allocation codes of a few edits answer every prompt",
    ("newest wins", "hook_layer/paper"): "on a random model hardly a token stands out",
    ("newest wins", "patcher/paper"): "patches of one prompt add up; the service takes out what is superseded",
}
"""The laws that an editor as published is not held to, and the reasons. tests/editors checks its maths by hand."""


def excuse(law: str, editor: str) -> None:
    if (law, editor) in EXCUSED:
        pytest.skip(EXCUSED[law, editor])


@pytest.fixture(params=enrolled(CASES, QUICK))
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def architecture(case: tuple[str, str]) -> str:
    return case[0]


@pytest.fixture
def editor(case: tuple[str, str]) -> str:
    return case[1]


@pytest.fixture
def capabilities(rig: Rig, editor: str) -> Capabilities:
    """An editor's declared capabilities decide which laws it is held to."""
    return rig.editors[editor].capabilities


@cache
def learned(architecture: str, editor: str) -> tuple[Fitted, ...]:
    """A fit is a pure function of its requests and seeds: the laws that do not ask about it share one."""
    rig = Rig(architecture)
    return tuple(rig.fit(editor, [rig.fit_request(prompt, target) for _, prompt, target in EDITS]))


@cache
def learned_alone(architecture: str, editor: str) -> tuple[Fitted, ...]:
    """The fits of EDITS, each beside no other."""
    rig = Rig(architecture)
    return tuple(rig.fit(editor, [rig.fit_request(prompt, target)])[0] for _, prompt, target in EDITS)


def having(architecture: str, editor: str, **settings: int) -> Rig:
    """A rig that has learned EDITS."""
    rig = Rig(architecture, **settings)
    for (edit_id, *_), fitted in zip(EDITS, learned(architecture, editor), strict=True):
        rig.load(editor, edit_id, fitted)
    return rig


@pytest.fixture
def rig(architecture: str, editor: str) -> Rig:
    return having(architecture, editor)


def tokens(rig: Rig, edition: Edition, prompts: list[str] = PROMPTS) -> list[list[int]]:
    return [outcome.tokens for outcome in rig.ask(prompts, edition)]


def exact(rig: Rig, edition: Edition, prompts: list[str] = PROMPTS) -> list[tuple[list[int], list[float]]]:
    """Token for token, log-probability for log-probability, bit for bit."""
    return [(outcome.tokens, outcome.logprobs) for outcome in rig.ask(prompts, edition)]


def weights(rig: Rig) -> str:
    digest = hashlib.sha256()
    for _, tensor in sorted(rig.hosted.model.state_dict().items()):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def hooks_of(rig: Rig) -> dict[str, int]:
    """The number of hooks on each module that has any. PyTorch does not tell it in public."""
    named = rig.hosted.model.named_modules()
    counts = {name: len(module._forward_hooks) + len(module._forward_pre_hooks) for name, module in named}
    return {name: count for name, count in counts.items() if count}


@everywhere
def test_no_edits_is_the_bare_model(architecture: str, editor: str) -> None:
    bare, rig = Rig(architecture), having(architecture, editor)
    bare.hooks.close()
    assert exact(rig, NOTHING) == exact(bare, NOTHING)
    assert tokens(rig, NOTHING) == [without_cache(rig.hosted, prompt, 8) for prompt in PROMPTS]


def test_an_edit_answers_its_prompt(rig: Rig, editor: str) -> None:
    excuse("answers alone", editor)
    edited = rig.ask(PROMPTS[:3], Edition("default", 3, IDS))
    assert [[hit.edit_id for hit in outcome.generation.reached] for outcome in edited] == [["e0"], ["e1"], ["e2"]]
    excuse("learns", editor)
    count = 1 if "/" in editor else 2  # one vector, as published, holds a token of a random model for certain
    first = [rig.engine.text.encode_target(prompt, target)[:count] for _, prompt, target in EDITS]
    assert [tuple(outcome.tokens[:count]) for outcome in edited] == first


def test_an_edit_answers_no_other_prompt(rig: Rig, editor: str) -> None:
    if "/" in editor:
        pytest.skip("as published, a radius of 1, a code or a z-score lets other prompts through, and patches leak")
    base, edited = tokens(rig, NOTHING), rig.ask(PROMPTS, Edition("default", 3, IDS))
    assert [outcome.tokens for outcome in edited[3:]] == base[3:]
    assert [outcome.generation.reached for outcome in edited[3:]] == [(), ()]


def test_a_prompt_that_no_edit_answers_is_answered_bit_for_bit_as_by_the_bare_model(
    rig: Rig, editor: str, capabilities: Capabilities
) -> None:
    excuse("defers", editor)
    if not capabilities.local:
        pytest.skip("declared: its edits are felt elsewhere")
    edition = Edition("default", 3, IDS)
    together = rig.ask(PROMPTS, edition)
    deferred = [at for at, outcome in enumerate(together) if not outcome.generation.reached]
    assert deferred, "else nothing is compared"
    for at in deferred:
        (bare,) = exact(rig, NOTHING, [PROMPTS[at]])
        assert exact(rig, edition, [PROMPTS[at]]) == [bare]
        # beside rows that edits answer, a pass of another shape may round the last bit otherwise
        assert together[at].tokens == bare[0]
        assert together[at].logprobs == pytest.approx(bare[1], abs=1e-5)


@everywhere
def test_commit_then_roll_back_is_never_edited(rig: Rig, architecture: str, editor: str) -> None:
    """The law holds with another edit live, so that the editor acts before and after, and with none."""
    bare, before = exact(Rig(architecture), NOTHING), exact(rig, Edition("default", 1, ("e0",)))
    committed = exact(rig, Edition("default", 3, IDS))
    if "/" not in editor:  # as published, not every edit of a random model is felt
        assert before != bare != committed != before
    assert exact(rig, Edition("default", 5, ("e0",))) == before
    for rolled_back in IDS[1:]:
        rig.engine.drop(rolled_back)
    assert exact(rig, Edition("default", 5, ("e0",))) == before
    rig.engine.drop("e0")
    assert exact(rig, Edition("default", 6, ())) == bare


@fits_again
@pytest.mark.parametrize("gone", IDS)
def test_rolling_back_one_leaves_the_others_as_if_it_had_never_been(
    rig: Rig, architecture: str, editor: str, gone: str, capabilities: Capabilities
) -> None:
    kept = [edit for edit in EDITS if edit[0] != gone]
    ids = tuple(edit_id for edit_id, *_ in kept)
    if capabilities.independent:
        never = Rig(architecture)
        never.learn(editor, kept)
        assert tokens(rig, Edition("default", 4, ids)) == tokens(never, Edition("default", 2, ids))
    with_it, without_it = Rig(architecture), Rig(architecture)
    for edit_id, each in zip(IDS, learned_alone(architecture, editor), strict=True):
        with_it.load(editor, edit_id, each)
        if edit_id != gone:
            without_it.load(editor, edit_id, each)
    assert exact(with_it, Edition("default", 4, ids)) == exact(without_it, Edition("default", 4, ids))


def test_batch_is_solo(rig: Rig) -> None:
    edition = Edition("default", 3, IDS)
    together = tokens(rig, edition)
    assert together == [tokens(rig, edition, [prompt])[0] for prompt in PROMPTS]


@fits_again
def test_fitted_in_a_batch_is_fitted_alone(
    rig: Rig, editor: str, architecture: str, capabilities: Capabilities
) -> None:
    if not capabilities.independent:
        pytest.skip("declared: a batch is fitted together")
    alone = Rig(architecture)
    edition = Edition("default", 3, IDS)
    for (edit_id, prompt, target), together in zip(EDITS, learned(architecture, editor), strict=True):
        by_itself = alone.fit(editor, [alone.fit_request(prompt, target)])[0]
        alone.load(editor, edit_id, by_itself)
        for name, tensor in by_itself.tensors.items():
            assert torch.allclose(tensor, together.tensors[name], rtol=1e-3, atol=1e-3), name
    assert tokens(alone, edition) == tokens(rig, edition)


def test_chunked_prefill_is_whole_prefill(rig: Rig, architecture: str, editor: str) -> None:
    chunked = having(architecture, editor, chunk_tokens=5)
    edition = Edition("default", 3, IDS)
    assert tokens(chunked, edition) == tokens(rig, edition)
    assert tokens(chunked, NOTHING) == tokens(rig, NOTHING)


def test_rows_of_several_revisions_share_a_batch(rig: Rig, editor: str) -> None:
    """A pinned row does not see later edits, nor lose one that was rolled back after it was admitted."""
    editions = [
        NOTHING,
        Edition("default", 1, ("e0",)),
        Edition("default", 3, IDS),
        Edition("default", 4, ("e1", "e2")),
    ]
    alone = [tokens(rig, edition, PROMPTS[:2]) for edition in editions]
    outcomes = [[rig.add(prompt, edition) for prompt in PROMPTS[:2]] for edition in editions]
    rig.run()
    assert [[outcome.tokens for outcome in row] for row in outcomes] == alone
    if "/" not in editor:
        assert alone[0][0] != alone[1][0] == alone[2][0] != alone[3][0] == alone[0][0]


@fits_again
def test_the_newest_of_two_edits_of_one_prompt_wins(rig: Rig, editor: str) -> None:
    excuse("newest wins", editor)
    rig.learn(editor, [("again", PROMPTS[0], "T")])
    both = rig.ask(PROMPTS[:1], Edition("default", 4, (*IDS, "again")))[0].generation
    assert [hit.edit_id for hit in both.reached] == ["again"]


def test_state_survives_storing(rig: Rig, architecture: str, editor: str) -> None:
    other = Rig(architecture)
    for (edit_id, *_), each in zip(EDITS, learned(architecture, editor), strict=True):
        other.load(editor, edit_id, Fitted(learned=dict(each.learned), tensors=unpack(pack(each.tensors))))
    edition = Edition("default", 3, IDS)
    assert exact(other, edition) == exact(rig, edition)


def test_the_base_weights_never_change(architecture: str, editor: str) -> None:
    rig = Rig(architecture)
    before = weights(rig)
    rig.learn(editor, EDITS)
    assert torch.is_grad_enabled(), "a fit ends outside of the modes that its steps ran in"
    assert not torch.is_inference_mode_enabled()
    tokens(rig, Edition("default", 3, IDS))
    assert weights(rig) == before
    assert not any(parameter.requires_grad for parameter in rig.hosted.model.parameters())


def test_a_failed_fit_leaves_no_hook(architecture: str, editor: str) -> None:
    rig = Rig(architecture)
    before, hooks = exact(rig, NOTHING), hooks_of(rig)
    head = rig.hosted.model.get_output_embeddings()

    def break_down(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = head.register_forward_hook(break_down)
    with pytest.raises(RuntimeError, match="out of memory"):
        rig.fit(editor, [rig.fit_request(*EDITS[0][1:])])
    handle.remove()
    assert hooks_of(rig) == hooks
    assert exact(rig, NOTHING) == before


def test_an_edition_is_a_pure_function_of_the_live_edits(rig: Rig, capabilities: Capabilities) -> None:
    if not capabilities.order_free:
        pytest.skip("declared: the order in which edits came is part of what they are")
    grown, shuffled = Edition("default", 3, IDS), Edition("default", 9, IDS[::-1])
    assert exact(rig, grown) == exact(rig, shuffled)


@fits_again
def test_dropped_rows_are_used_again(rig: Rig, editor: str) -> None:
    edition = Edition("default", 3, IDS)
    before = exact(rig, edition)
    (fitted,) = rig.fit(editor, [rig.fit_request("The queen of Freedonia was", "F")])
    held = set()
    for _ in range(70):  # a buffer begins with 64 rows, so that a lost row an edit makes it grow
        rig.load(editor, "trial", fitted)
        rig.engine.drop("trial")
        held.add(rig.editors[editor].held_bytes)
    assert len(held) == 1
    assert exact(rig, edition) == before
