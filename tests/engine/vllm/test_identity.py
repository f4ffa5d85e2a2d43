"""Two programs are compared by the first numbers of a weight."""

import torch
from torch import nn

from app.engine.vllm.inside.errata_vllm.identity import weight_of
from app.engine.vllm.served_model import ServedModel
from tests.models import tiny


def test_the_compared_weight_is_that_of_the_model_in_its_precision() -> None:
    hosted = tiny("llama")
    served = ServedModel.of(hosted, "model.layers.1.mlp")
    assert (served.weight, served.dtype) == ("model.embed_tokens.weight", "float32")
    hosted.model.bfloat16()
    assert ServedModel.of(hosted, "model.layers.1.mlp").digest != served.digest
    hosted.model.float()
    hosted.model.get_input_embeddings().weight.data[0, 0] += 1
    assert ServedModel.of(hosted, "model.layers.1.mlp").digest != served.digest


def test_a_weight_is_found_in_a_module_that_was_wrapped_for_loras() -> None:
    plain = nn.ModuleDict({"embed_tokens": nn.Embedding(4, 2), "norm": nn.LayerNorm(2)})
    wrapped = nn.ModuleDict({"embed_tokens": nn.ModuleDict({"base_layer": plain["embed_tokens"]})})
    weight = plain.get_parameter("embed_tokens.weight")
    for each in (plain, wrapped):
        found = weight_of(dict(each.named_parameters()), "embed_tokens.weight")
        assert found is not None
        assert torch.equal(found, weight)
    assert weight_of(dict(plain.named_parameters()), "lm_head.weight") is None
