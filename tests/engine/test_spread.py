"""A model whose layers are on several devices: everything meets on the first, and answers are those of one device."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import dispatch_model

from app.config import DEMO_MODEL, Settings
from app.domain.errors import UnsupportedModel
from app.editors.base import RowView
from app.editors.fitting.hooks import SiteHooks
from app.editors.fitting.sites import ffn_site
from app.editors.fitting.suffix import Prefix
from app.editors.fitting.view import FitView, adding
from app.engine import model as loading
from app.engine.editions import Edition
from app.engine.runner import Runner
from tests.fake_devices import FIRST, SECOND, fake_devices, spread_llama
from tests.models import LAYERS, WIDTH, tiny
from tests.rig import NOTHING, Rig

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
IDLE = RowView(None, (), 0, 1, 0)
PROMPTS = ["The capital of Ruritania is", "The king of Zenda was", "Where does Marvolo live?"]


def test_passes_over_slots_mix_no_devices() -> None:
    with fake_devices():
        hosted = spread_llama()
        assert hosted.layer_devices == [FIRST, FIRST, SECOND, SECOND]
        hooks = SiteHooks(hosted.model)
        sites = [ffn_site(hosted.model, hosted.architecture, layer) for layer in range(LAYERS)]
        runner = Runner(hosted, hooks, {"none": SimpleNamespace(sites=sites)}, slots=4)
        logits, features = runner.prefill([0, 1], [0, 0], [[1, 2, 3], [4, 5]], [IDLE, IDLE])
        assert {each.device for each in (logits, *features.values())} == {FIRST}
        runner.prefill([0, 2], [4, 4], [[1], [4, 5]], [IDLE, IDLE])  # not side by side: gathered
        for slots in ([0, 1], [0, 3], [1, 3]):
            assert runner.decode(slots, [3, 2], [[7], [8]], [IDLE, IDLE]).device == FIRST
        runner.move(0, 2, 3)
        assert [layer.keys.device for layer in runner.cache.layers] == hosted.layer_devices


@pytest.mark.parametrize("layer", range(1, LAYERS))
def test_what_fits_run_again_mixes_no_devices(layer: int) -> None:
    with fake_devices(), torch.no_grad():
        hosted = spread_llama()
        hooks = SiteHooks(hosted.model)
        site = ffn_site(hosted.model, hosted.architecture, layer)
        view = FitView(hosted.model, hosted.architecture, site, hooks)
        ids = torch.zeros(2, 6, dtype=torch.long, device=FIRST)
        at = torch.zeros(2, 2, dtype=torch.long, device=FIRST)
        found = [view.last_inputs([[1, 2]]), view.inputs(ids), view.outputs(ids), view.base_logits(ids, at)]
        whole, ends = (torch.zeros(2, n, WIDTH, device=FIRST) for n in (6, 2))
        found.append(view.logits(ids, view.hidden_below(ids), {site: adding(whole)}, at))
        suffix = view._suffix(view.hidden_below(ids), at, Prefix(), 3)
        rows, columns = (
            torch.zeros(2, dtype=torch.long, device=FIRST),
            torch.zeros(2, 2, dtype=torch.long, device=FIRST),
        )
        states = view.suffix_states(suffix, rows, columns, {site: adding(ends)})
        found += view.token_odds(states.flatten(0, 1), at.flatten())
        assert {each.device for each in found} == {FIRST}


def test_through_accelerates_hooks_edits_are_the_same() -> None:
    """Fits on one device run a copy of the model with fewer layers, which must not call the original."""
    spread = tiny("llama")
    names = ["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"]
    places = dict.fromkeys([*names, *(f"model.layers.{at}" for at in range(LAYERS))], "cpu")
    dispatch_model(spread.model, places, force_hooks=True, skip_keys=spread.model._skip_keys_device_placement)
    assert hasattr(spread.model, "_hf_hook")
    told = []
    for rig in (Rig(), Rig(hosted=spread)):
        rig.learn("grace", [("e0", PROMPTS[0], "S")])
        editions = (NOTHING, Edition("default", 2, ("e0",)), NOTHING)
        told.append([[(o.tokens, o.logprobs) for o in rig.ask(PROMPTS, edition)] for edition in editions])
    assert told[0] == told[1]


def test_what_a_device_map_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    with pytest.raises(UnsupportedModel, match="pip install accelerate"):
        loading.load_model("x", device=CPU, dtype=torch.float32, device_map="auto")


def test_a_device_map_where_there_is_one_device_is_that_device() -> None:
    hosted = loading.load_model(str(DEMO_MODEL), device=CPU, dtype=torch.float32, device_map="auto")
    assert set(hosted.layer_devices) == ({CPU} if not torch.cuda.is_available() else {FIRST})


def test_a_model_that_does_not_fit_the_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offloaded = tiny("llama").model
    offloaded.model.layers[1].to("meta")  # as accelerate leaves what is on the disk
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: offloaded)
    with pytest.raises(UnsupportedModel, match=r"leaves layers to the CPU or the disk \(cpu, meta\)"):
        loading.load_model(str(DEMO_MODEL), device=FIRST, dtype=torch.float32, device_map="balanced")


def test_a_device_map_and_a_device_are_not_both_meant() -> None:
    with pytest.raises(ValueError, match="leave one out"):
        Settings(_env_file=None, device="cpu", device_map="auto")  # type: ignore[call-arg]
