"""What an edition sees, from what the last one saw: the same as if it were compiled anew."""

import random

import torch

from app.editors.base import FitRequest, Fitted, Plain
from app.editors.phrasebook import load_phrasebook
from app.editors.scope_index import ScopeIndex, ScopePart
from app.engine.editions import Edition, Editions
from tests.editors.test_what import what_of


class Scopes(Plain):
    """An editor that has scopes and nothing else."""

    name = "scopes"

    def __init__(self) -> None:
        what, view = what_of()
        self.index = ScopeIndex(what, load_phrasebook().lexicon, view.device)
        self.whole = 0

    def load(self, edit_id: str, fitted: Fitted) -> None:
        self.index.load(edit_id, self.index.read(edit_id, fitted.learned), fitted.tensors["keys"])

    def drop(self, edit_id: str) -> None:
        self.index.drop(edit_id)

    def compile(self, edit_ids: list[str]) -> ScopePart:  # type: ignore[override]
        self.whole += 1
        return self.index.compile(edit_ids)

    def compile_after(  # type: ignore[override]
        self, part: ScopePart, edit_ids: list[str], added: list[str], removed: list[str]
    ) -> ScopePart:
        return self.index.compile_after(part, added, removed)


def fitted(editor: Scopes, prompt: str, target: int, seed: int) -> Fitted:
    request = FitRequest(
        texts=(prompt,), contexts=(tuple(prompt.encode()),), counter_contexts=(), target_ids=(target, 0),
        subject=None, aliases=(), counter_examples=(), seed=0,
    )  # fmt: skip
    learned, keys = editor.index.learn(request)
    noise = torch.randn(keys.shape, generator=torch.Generator().manual_seed(seed))
    return Fitted(learned=learned, tensors={"keys": keys + 0.05 * noise})


def seen(part: ScopePart) -> tuple[object, ...]:
    return dict(part.radii), sorted(part.places, key=part.places.__getitem__), part.nameless, part.first_keys.tolist()


def test_step_by_step_is_as_all_at_once() -> None:
    rng, editor = random.Random(5), Scopes()
    editions = Editions({"scopes": editor})  # type: ignore[dict-item]
    prompts = ["Who founded Lumen?", "Who is the owner of Lumen?", "What is Tessel?", "what?", "Lumen, in"]
    learned = {(p, t): fitted(editor, p, t, 7 * t + len(p)) for p in prompts for t in (1, 2)}
    live: list[str] = []
    for number in range(120):
        for _ in range(rng.randrange(1, 4)):
            if live and rng.random() < 0.4:
                gone = live.pop(rng.randrange(len(live)))
                if rng.random() < 0.5:
                    editor.drop(gone)
                    editions.disown(gone)
            else:
                edit_id = f"e{number}.{len(live)}.{rng.random()}"
                editor.load(edit_id, learned[rng.choice(list(learned))])
                editions.own(edit_id, "scopes")
                live.append(edit_id)
        edition = Edition("default", number, tuple(live))
        parts = editions.parts(edition)
        assert parts.keys() == ({"scopes"} if live else set())
        if live:
            assert seen(parts["scopes"]) == seen(editor.index.compile(live))
    assert editor.whole < 60, "else nothing was taken over"


def test_a_trial_takes_over_and_leaves_no_trace() -> None:
    editor = Scopes()
    editions = Editions({"scopes": editor})  # type: ignore[dict-item]
    for edit_id, target in (("a", 1), ("b", 2), ("c", 3)):
        editor.load(edit_id, fitted(editor, "Who founded Lumen?", target, target))
        editions.own(edit_id, "scopes")
    current = Edition("default", 1, ("a", "b"))
    before = seen(editions.parts(current)["scopes"])
    trial = current.trying(["c"], frozenset(("a",)))
    assert seen(editions.parts(trial)["scopes"]) == seen(editor.index.compile(["b", "c"]))
    assert seen(editions.parts(Edition("default", 2, ("a", "b")))["scopes"]) == before
    assert editor.whole == 1


def test_rows_that_were_dropped_and_loaded_again_are_looked_up_again() -> None:
    editor = Scopes()
    editions = Editions({"scopes": editor})  # type: ignore[dict-item]
    made = fitted(editor, "Who founded Lumen?", 1, 1)
    for _ in range(2):
        editor.load("a", made)
        editions.own("a", "scopes")
        assert seen(editions.parts(Edition("default", 1, ("a",)))["scopes"]) == seen(editor.index.compile(["a"]))
        editor.drop("a")
        editions.disown("a")


def test_a_retuned_edit_keeps_its_age() -> None:
    editor = Scopes()
    editions = Editions({"scopes": editor})  # type: ignore[dict-item]
    for edit_id, target in (("a", 1), ("b", 2), ("a@2", 3)):
        editor.load(edit_id, fitted(editor, "Who founded Lumen?", target, target))
        editions.own(edit_id, "scopes")
    for ids in (("a", "b"), ("a@2", "b")):
        assert seen(editions.parts(Edition("default", 1, ids))["scopes"]) == seen(editor.index.compile(ids))
