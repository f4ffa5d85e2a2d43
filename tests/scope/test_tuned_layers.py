"""The encoder's upper layers, tuned: what they compute before and after anything is learned."""

import torch

from app.scope.encoder import Encoder, find_encoder
from tests.rig import an_encoder

TEXTS = ("Why?", "How long does the train from Ulm to Bonn take on a Sunday?")


def test_untrained_they_compute_what_the_encoder_computes() -> None:
    plain = Encoder(find_encoder("minilm"))
    tuned = plain.tunable()
    for text in plain.encode(TEXTS):
        upper = tuned(text.middle[None].float(), torch.ones(1, len(text.middle)))[0, 1:-1]
        assert torch.allclose(upper, text.upper.float(), atol=2e-2)


def test_what_is_merged_computes_what_was_learned() -> None:
    plain = an_encoder()
    tuned = plain.tunable(rank=3)
    for each in tuned.learned().values():
        torch.nn.init.normal_(each, std=0.05)
    (text,) = plain.encode(TEXTS[1:])
    hidden, real = text.middle[None].float(), torch.ones(1, len(text.middle))
    learned = {name: each.detach().clone() for name, each in tuned.learned().items()}
    apart = tuned(hidden, real)
    assert torch.allclose(plain.tunable(rank=3).with_learned(learned)(hidden, real), apart, atol=1e-3)
    assert not torch.allclose(plain.tunable(rank=3)(hidden, real), apart, atol=1e-1)


def test_vectors_are_those_of_the_encoder_alone() -> None:
    """Keys that were encoded before another scorer shipped are found as before."""
    plain = Encoder(find_encoder("minilm"))
    assert plain.fingerprint == an_encoder().fingerprint
    for one, other in zip(plain.encode(TEXTS), an_encoder().encode(TEXTS), strict=True):
        assert torch.allclose(one.vector, other.vector, atol=1e-5)
