"""CoachHooK as published finds a subject letter by letter, whatever its words are."""

import pytest
import torch

from app.domain.errors import InvalidRequest
from app.editors.base import FitRequest
from app.editors.hook_layer.paper import HookLayersPaper
from app.editors.hook_layer.subject_value import SubjectSpread, ValueFitParameters, subject_places
from tests.rig import Rig


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("What kind of family is Gabb's snail of?", "Gabb's snail"),
        ("Who wrote What Is to Be Done? and when", "What Is to Be Done?"),
        ("The capital of Ruritania is", "Ruritania"),
    ],
)
def test_a_subject_that_stands_in_the_prompt_is_found_to_its_last_letter(prompt: str, subject: str) -> None:
    rig = Rig()
    request = rig.fit_request(prompt, "S", subject=subject)
    (at,) = subject_places([request], torch.device("cpu")).subject_ends.tolist()
    assert prompt[: request.ends[0][at]].endswith(subject)


def test_a_subject_that_is_not_there_is_refused() -> None:
    rig = Rig()
    request = rig.fit_request("The capital of Ruritania is", "S", subject="Graustark")
    with pytest.raises(InvalidRequest, match="does not mention"):
        subject_places([request], torch.device("cpu"))


def test_an_edit_of_a_batch_is_given_the_value_that_it_is_given_alone() -> None:
    """Also where another one of the batch is done before it: `enough` lies between what the two begin with."""
    rig = Rig()
    editor = rig.editors["hook_layer/paper"]
    assert isinstance(editor, HookLayersPaper)
    sites = editor.sites
    (above,) = rig.foundation.down_sites([sites[-1].layer + 1])
    spread = SubjectSpread(rig.foundation.view(sites[0], sites), rig.foundation.view(above), sites)
    first = rig.fit_request("The capital of Ruritania is", "S", subject="Ruritania")
    second = rig.fit_request("The king of Zenda was", "R", subject="Zenda")

    def values(*requests: FitRequest, enough: float) -> tuple[torch.Tensor, list[float]]:
        rows = subject_places(requests, torch.device("cpu"))
        fit = spread.values(rows, None, ValueFitParameters(enough=enough))
        losses: list[float] = []
        while True:
            try:
                losses.append(next(fit).loss)
            except StopIteration as stop:
                return stop.value, losses

    began = sorted(values(each, enough=0.0)[1][0] for each in (first, second))
    enough = sum(began) / 2
    both, _ = values(first, second, enough=enough)
    for at, each in enumerate((first, second)):
        assert torch.allclose(both[at], values(each, enough=enough)[0][0], rtol=1e-3, atol=1e-4)
    assert sum(bool(value.any()) for value in both) == 1, "one of them was done at once"
