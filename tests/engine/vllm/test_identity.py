"""Two programs are compared by the first numbers of a weight."""

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
