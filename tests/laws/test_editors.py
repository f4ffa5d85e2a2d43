"""Laws that every editor keeps on every architecture. An editor enrols itself by standing in the registry."""

import hashlib

import pytest
import torch

from app.editors.base import Fitted
from app.editors.packing import pack, unpack
from app.editors.registry import EDITORS
from app.engine.editions import Edition
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


@pytest.fixture(params=sorted(EDITORS))
def editor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rig(architecture: str, editor: str) -> Rig:
    rig = Rig(architecture)
    rig.learn(editor, EDITS)
    return rig


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


def test_no_edits_is_the_bare_model(architecture: str, editor: str) -> None:
    bare, rig = Rig(architecture), Rig(architecture)
    bare.hooks.close()
    rig.learn(editor, EDITS)
    assert exact(rig, NOTHING) == exact(bare, NOTHING)
    assert tokens(rig, NOTHING) == [without_cache(rig.hosted, prompt, 8) for prompt in PROMPTS]


def test_an_edit_answers_its_prompt_and_no_other(rig: Rig) -> None:
    base, edited = tokens(rig, NOTHING), rig.ask(PROMPTS, Edition("default", 3, IDS))
    first = [rig.engine.text.encode_target(prompt, target)[:2] for _, prompt, target in EDITS]
    assert [tuple(outcome.tokens[:2]) for outcome in edited[:3]] == first
    assert [outcome.tokens for outcome in edited[3:]] == base[3:]
    assert [[hit.edit_id for hit in outcome.generation.hits] for outcome in edited] == [["e0"], ["e1"], ["e2"], [], []]


def test_commit_then_roll_back_is_never_edited(rig: Rig, architecture: str) -> None:
    before = exact(rig, NOTHING)
    exact(rig, Edition("default", 3, IDS))
    assert exact(rig, Edition("default", 6, ())) == before
    assert exact(Rig(architecture), NOTHING) == before


@pytest.mark.parametrize("gone", IDS)
def test_rolling_back_one_leaves_the_others_as_if_it_had_never_been(
    rig: Rig, architecture: str, editor: str, gone: str
) -> None:
    kept = [edit for edit in EDITS if edit[0] != gone]
    never = Rig(architecture)
    never.learn(editor, kept)
    ids = tuple(edit_id for edit_id, *_ in kept)
    assert tokens(rig, Edition("default", 4, ids)) == tokens(never, Edition("default", 2, ids))
    fitted = {edit_id: rig.fit(editor, [rig.fit_request(p, t)])[0] for edit_id, p, t in EDITS}
    with_it, without_it = Rig(architecture), Rig(architecture)
    for edit_id, each in fitted.items():
        with_it.load(editor, edit_id, each)
        if edit_id != gone:
            without_it.load(editor, edit_id, each)
    assert exact(with_it, Edition("default", 4, ids)) == exact(without_it, Edition("default", 4, ids))


def test_batch_is_solo(rig: Rig) -> None:
    edition = Edition("default", 3, IDS)
    together = tokens(rig, edition)
    assert together == [tokens(rig, edition, [prompt])[0] for prompt in PROMPTS]


def test_fitted_in_a_batch_is_fitted_alone(rig: Rig, editor: str, architecture: str) -> None:
    alone = Rig(architecture)
    for edit in EDITS:
        alone.learn(editor, [edit])
    edition = Edition("default", 3, IDS)
    assert tokens(alone, edition) == tokens(rig, edition)


def test_chunked_prefill_is_whole_prefill(rig: Rig, architecture: str, editor: str) -> None:
    chunked = Rig(architecture, chunk_tokens=5)
    chunked.learn(editor, EDITS)
    edition = Edition("default", 3, IDS)
    assert tokens(chunked, edition) == tokens(rig, edition)
    assert tokens(chunked, NOTHING) == tokens(rig, NOTHING)


def test_rows_of_several_revisions_share_a_batch(rig: Rig) -> None:
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
    assert alone[0][0] != alone[1][0] == alone[2][0] != alone[3][0] == alone[0][0]


def test_the_newest_of_two_edits_of_one_prompt_wins(rig: Rig, editor: str) -> None:
    rig.learn(editor, [("again", PROMPTS[0], "T")])
    both = rig.ask(PROMPTS[:1], Edition("default", 4, (*IDS, "again")))[0].generation
    assert [hit.edit_id for hit in both.hits] == ["again"]


def test_state_survives_storing(rig: Rig, architecture: str, editor: str) -> None:
    fitted = rig.fit(editor, [rig.fit_request(prompt, target) for _, prompt, target in EDITS])
    other = Rig(architecture)
    for (edit_id, *_), each in zip(EDITS, fitted, strict=True):
        other.load(editor, edit_id, Fitted(learned=dict(each.learned), tensors=unpack(pack(each.tensors))))
    edition = Edition("default", 3, IDS)
    assert exact(other, edition) == exact(rig, edition)


def test_the_base_weights_never_change(architecture: str, editor: str) -> None:
    rig = Rig(architecture)
    before = weights(rig)
    rig.learn(editor, EDITS)
    tokens(rig, Edition("default", 3, IDS))
    assert weights(rig) == before
    assert not any(parameter.requires_grad for parameter in rig.hosted.model.parameters())


def test_a_failed_fit_leaves_no_hook(architecture: str, editor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(architecture)
    before = exact(rig, NOTHING)
    head = rig.hosted.model.get_output_embeddings()

    def break_down(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = head.register_forward_hook(break_down)
    with pytest.raises(RuntimeError, match="out of memory"):
        rig.fit(editor, [rig.fit_request(*EDITS[0][1:])])
    handle.remove()
    assert exact(rig, NOTHING) == before


def test_an_edition_is_a_pure_function_of_the_live_edits(rig: Rig, editor: str) -> None:
    grown, shuffled = Edition("default", 3, IDS), Edition("default", 9, IDS[::-1])
    assert exact(rig, grown) == exact(rig, shuffled)


def test_dropped_rows_are_used_again(rig: Rig, editor: str) -> None:
    edition = Edition("default", 3, IDS)
    before = exact(rig, edition)
    for _ in range(3):
        rig.learn(editor, [("trial", "The queen of Freedonia was", "F")])
        rig.engine.drop("trial")
    assert exact(rig, edition) == before
    assert not torch.is_grad_enabled() or exact(rig, NOTHING)


def test_edits_of_all_editors_side_by_side_are_each_alone(architecture: str) -> None:
    """In one batch, rows that different editors answer: what one does is not felt by the others' rows."""
    rig, alone = Rig(architecture), {name: Rig(architecture) for name in sorted(EDITORS)}
    ids = []
    for prompt, (editor, single) in zip(PROMPTS, alone.items(), strict=False):
        fitted = rig.fit(editor, [rig.fit_request(prompt, "S")])[0]
        for each in (rig, single):
            each.load(editor, f"by {editor}", fitted)
        ids.append(f"by {editor}")
    assert len(ids) == len(EDITORS)
    together = rig.ask(PROMPTS, Edition("default", 9, tuple(ids)))
    for row, (editor, single) in enumerate(alone.items()):
        ours = single.ask(PROMPTS, Edition("default", 9, (f"by {editor}",)))[row]
        assert [hit.editor for hit in together[row].generation.hits] == [editor]
        assert together[row].tokens == ours.tokens
    rest = slice(len(ids), None)
    assert [outcome.tokens for outcome in together[rest]] == tokens(rig, NOTHING)[rest]
