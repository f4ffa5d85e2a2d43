"""The upper layers alone, given the states that enter them, compute what the whole model does; the outline is the model
without its weights."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.domain.errors import UnknownModel, UnsupportedModel
from app.editors.fitting.contexts import collate
from app.editors.fitting.hooks import SiteHooks
from app.editors.fitting.sites import ffn_site, layers_of
from app.editors.fitting.suffix import Suffix
from app.editors.fitting.view import FitView, adding
from app.engine.fitter.upper_layers import load_upper_layers
from app.engine.model import HostedModel, load_model, load_outline
from tests.models import TINY, tiny

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
COMMON = list(range(30, 50))
PROMPTS = [[*COMMON, 5, 6], [*COMMON, 7], [*COMMON, 5, 6, 8], [12, 13]]


def saved(kind: str, folder: Path) -> HostedModel:
    hosted = tiny(kind)
    hosted.model.save_pretrained(folder)
    hosted.tokenizer.save_pretrained(folder)
    return hosted


@pytest.mark.parametrize("kind", sorted(TINY))
def test_upper_layers_fit_as_the_whole_model_does(kind: str, tmp_path: Path) -> None:
    check_upper_layers(saved(kind, tmp_path), str(tmp_path))


def check_upper_layers(hosted: HostedModel, name: str) -> None:
    """The upper layers of the model of that name fit as the hosted one does."""
    whole = FitView(
        hosted.model, hosted.architecture, ffn_site(hosted.model, hosted.architecture, 2), SiteHooks(hosted.model)
    )
    asked: list[Sequence[int]] = []

    def states(rows: Sequence[Sequence[int]]) -> list[Tensor]:
        asked.extend(rows)
        return [whole.hidden_below(torch.tensor([row]))[0] for row in rows]

    model, architecture = load_upper_layers(name, model_revision=None, site_layer=2, **CPU)
    upper = FitView(model, architecture, ffn_site(model, architecture, 2), SiteHooks(model), base_states=states)
    assert upper.widths == whole.widths

    batch = collate([PROMPTS], [[20, 21, 22]], "cpu")
    results = []
    for view in (whole, upper):
        delta = torch.randn(4, 3, view.widths[1], generator=torch.Generator().manual_seed(0)).requires_grad_()
        suffix = Suffix.joined(list(view.suffixes(batch.ids, batch.position)))
        rows, columns = torch.arange(4), torch.arange(3).expand(4, 3)
        with torch.enable_grad():
            found = view.suffix_states(suffix, rows, columns, {view.site: adding(delta)})
            results.append((found.detach(), torch.autograd.grad(found.square().sum(), delta)[0]))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-4)
    assert asked == [[*prompt, 20, 21] for prompt in PROMPTS]


def test_nothing_below_the_site_is_read(tmp_path: Path) -> None:
    saved("qwen2", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    below = [name for name in weights if ".layers.0." in name or ".layers.1." in name or "embed_tokens" in name]
    save_file({name: each for name, each in weights.items() if name not in below}, tmp_path / "model.safetensors")
    if "lm_head.weight" not in weights:
        pytest.fail("this test needs a head of its own")
    model, architecture = load_upper_layers(str(tmp_path), model_revision=None, site_layer=2, **CPU)
    assert len(below) > 2
    assert [len(list(each.parameters())) for each in layers_of(model, architecture)[:2]] == [0, 0]


def test_a_weight_that_is_not_there_is_named(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModel, match=r"no weight model\.norm\.weight"):
        load_upper_layers(str(tmp_path), model_revision=None, site_layer=None, **CPU)


@pytest.mark.parametrize("kind", sorted(TINY))
def test_an_outline_is_the_model_in_all_but_its_weights(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    model = load_model(str(tmp_path), **CPU)
    outline = load_outline(str(tmp_path), **CPU)
    assert outline.is_outline
    assert not model.is_outline
    for name in ("fingerprint", "eos_ids", "max_tokens", "parameters", "device", "dtype", "vocabulary", "kv_shape"):
        assert getattr(outline, name) == getattr(model, name), name
    assert outline.layer_devices == model.layer_devices
    name, parameter = next(iter(model.model.named_parameters()))
    assert torch.equal(outline.values_of(name), parameter)
    held = sum(each.nbytes for each in outline.model.parameters() if each.device.type != "meta")
    assert held < sum(each.nbytes for each in tiny(kind).model.parameters()) / 4


def test_the_fingerprint_of_an_outline_depends_on_the_type_as_that_of_the_model_does(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    given = {"device": torch.device("cpu"), "dtype": torch.bfloat16}
    assert load_outline(str(tmp_path), **given).fingerprint == load_model(str(tmp_path), **given).fingerprint


def test_what_has_no_safetensors_is_refused_and_what_is_not_there_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        load_outline(str(tmp_path), **CPU)
    saved("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModel, match="safetensors"):
        load_outline(str(tmp_path), **CPU)
