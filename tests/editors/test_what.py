"""What is asked: keys and their distances, other questions made for an edit, and its radius against them."""

from collections import defaultdict
from pathlib import Path

import pytest
import torch

from app.editors.bank import load_bank
from app.editors.base import BankPrompt, Progress
from app.editors.fit_view import FitView
from app.editors.hooks import SiteHooks
from app.editors.kept import Kept
from app.editors.nearby import COUNT, Nearby
from app.editors.scope import find_who, surface, words_of
from app.editors.scope_index import _covering, _nearest
from app.editors.sites import ffn_site
from app.editors.what import SKETCH, What
from tests.models import tiny


def what_of(kind: str = "llama", bank: tuple[BankPrompt, ...] = (), kept: Kept | None = None) -> tuple[What, FitView]:
    hosted = tiny(kind)
    view = FitView(
        hosted.model, hosted.architecture, ffn_site(hosted.model, hosted.architecture, 0), SiteHooks(hosted.model)
    )
    return What(view, bank, [hosted.tokenizer(prompt.text).input_ids for prompt in bank], kept), view


def test_keys_are_those_of_the_last_token_whatever_else_is_in_the_batch() -> None:
    what, _ = what_of()
    together = what.of([[5, 6, 7, 8], [9], [10, 11]])
    assert together.shape == (3, what.width)
    assert torch.allclose(together[1], what.of([[9]])[0], atol=1e-5)
    hosted = tiny("llama")
    out = hosted.model(torch.tensor([[5, 6, 7, 8]]), output_hidden_states=True)
    by_hand = what.key(out.hidden_states[-1][:, -1], out.logits[:, -1])
    assert torch.allclose(together[:1], by_hand, atol=1e-4)


def test_the_sketch_keeps_hellingers_distance() -> None:
    what, view = what_of()
    logits = torch.randn(40, view.vocabulary, generator=torch.Generator().manual_seed(3)) * 4
    keys = what.key(torch.zeros(40, view.width), logits)[:, :SKETCH]
    roots = logits.softmax(-1).sqrt()
    exact, found = torch.pdist(roots), torch.pdist(keys)
    assert (exact - found).abs().max() < 0.4
    assert (exact - found).abs().mean() < 0.05


def test_calibration_puts_other_questions_at_one_and_few_of_them_inside() -> None:
    what, told = calibrated()
    assert told
    assert 0 < what.radius < 2
    assert what.radius != 1.0
    assert (what._scale > 0).all()
    assert (what._scale != 1).all()


def small_bank() -> tuple[BankPrompt, ...]:
    """Several relations of some subjects, so that other questions about them are told apart, and one of others."""
    relations: dict[str, set[str]] = defaultdict(set)
    for prompt in load_bank():
        relations[prompt.subject].add(prompt.relation)
    asked = {subject for subject, found in relations.items() if len(found) > 6}
    return tuple(prompt for prompt in load_bank() if prompt.subject in asked or prompt.relation < "b")


def calibrated(kept: Kept | None = None) -> tuple[What, list[Progress]]:
    what, _ = what_of("gpt2", small_bank(), kept)
    return what, list(what.calibrating())


def test_calibration_goes_in_micro_steps_that_all_who_wait_share() -> None:
    alone, told = calibrated()
    whole = [each.steps for each in told if each.step == each.steps]
    assert len(whole) == 2  # what keys are made by, then what only the radius is
    assert sum(whole) == len(small_bank())
    what, _ = what_of("gpt2", small_bank())
    first, second = what.calibrating(), what.calibrating()
    shared = [next(first), next(second), next(first)]
    first.close()  # whoever waited has gone: what was done is not lost
    shared += second
    assert [each.step for each in shared] == [each.step for each in told]
    assert what.radius == alone.radius
    assert list(what.calibrating()) == []


def test_a_key_that_is_needed_before_is_that_of_after() -> None:
    what, _ = what_of("gpt2", small_bank())
    next(what.calibrating())
    early = what.of([[5, 6, 7, 8]])
    assert list(what.comparing()) == []
    assert list(what.calibrating())  # the radius is still to come, and changes no key
    assert torch.equal(early, what.of([[5, 6, 7, 8]]))
    assert torch.equal(early, calibrated()[0].of([[5, 6, 7, 8]]))


def test_a_calibration_that_fails_is_begun_anew_by_whoever_asks_next() -> None:
    what, _ = what_of("gpt2", small_bank())
    with pytest.MonkeyPatch.context() as patch:

        def no_memory(*_: object) -> None:
            raise MemoryError

        steps = what.calibrating()
        next(steps)
        patch.setattr(what, "_signals", no_memory)
        with pytest.raises(MemoryError):
            next(steps)
    assert [each.step for each in what.calibrating()] == [each.step for each in calibrated()[1]]


def test_what_is_kept_makes_the_same_keys_bit_for_bit_and_takes_no_pass(tmp_path: Path) -> None:
    fresh, told = calibrated(Kept(tmp_path, "gpt2"))
    again, nothing = calibrated(Kept(tmp_path, "gpt2"))
    assert told
    assert nothing == []
    assert again.radius == fresh.radius
    contexts = [[5, 6, 7, 8], [9], [10, 11]]
    assert torch.equal(again.of(contexts), fresh.of(contexts))
    assert calibrated(Kept(tmp_path, "another model"))[1]


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    fresh, _ = calibrated(Kept(tmp_path, "gpt2"))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again, told = calibrated(Kept(tmp_path, "gpt2"))
    assert told
    assert again.radius == fresh.radius
    assert torch.equal(again.of([[9, 10]]), fresh.of([[9, 10]]))
    assert calibrated(Kept(tmp_path, "gpt2"))[1] == []  # and kept again


def test_other_questions_are_about_the_same_subject() -> None:
    nearby = Nearby(load_bank())
    made = nearby.about("Question: What is the capital of New Zealand? Answer:", None)
    assert len(made) == COUNT
    assert all("New Zealand" in text for text in made)
    assert len(set(made)) == COUNT
    assert len(nearby.about("who is he", None)) == COUNT
    assert all("Ruritania" in text for text in nearby.about("who is he", "Ruritania"))
    assert Nearby(()).about("The capital of Peru is", None) == ()


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("The United Kingdom's capital is", "United Kingdom"),
        ('Who wrote "the raven"?', "the raven"),
        ("what is that?", None),
        ("Did Ada Lovelace meet Charles Babbage?", None),
    ],
)
def test_a_name_is_written_as_in_the_prompt(prompt: str, name: str | None) -> None:
    assert surface(prompt, find_who(prompt, None, (), frozenset(words_of("what is the capital of that")))) == name


def test_so_many_keys_are_kept_that_no_context_is_far_from_one() -> None:
    own = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [5.1, 0.0], [0.0, 9.0]])
    kept = _covering(own, 0.5)
    assert len(kept) == 3
    assert torch.equal(kept[0], own[0])
    assert _nearest(own, kept).max() <= 0.5
    assert len(_covering(own, 100.0)) == 1
