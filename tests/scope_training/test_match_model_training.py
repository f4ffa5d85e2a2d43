"""The fit of the match model's weights."""

from dataclasses import replace

import torch

from app.scope.match_model import MatchFeatures, MatchModel
from app.scope_training.match_model_training import LabelledMatch, logistic_weights

NONE = torch.zeros(0)
NOTHING = MatchFeatures.of(
    torch.zeros(1), torch.zeros(1), NONE, NONE, contrast=0.0, traffic=False, cohesion=0.0, unnamed=False
)


def test_weights_are_those_that_part_what_was_seen() -> None:
    """Figures as they are, not standardised: the weights that are kept are applied to them."""
    seen = [
        LabelledMatch(replace(NOTHING, prompt=own, best=own, mean=own, contrast=0.1 * at), own > 0, 1.0)
        for at, own in enumerate((-3.0, -1.0, 1.0, 3.0))
    ]
    match_model = MatchModel({"alone": logistic_weights(seen)})
    assert [match_model.logit(each.figures) > 0 for each in seen] == [each.same for each in seen]
