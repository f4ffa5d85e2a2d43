"""Stand-ins for judges: fakes that say what a test wants, a real cross-encoder and a real hosted model, both tiny, that
know the pairs of the exam by heart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from app.engine.model import HostedModel, host
from app.scope.doubt import Doubt
from app.scope.exam import ExamPair
from app.service.hosted_judge import NO, YES
from tests.models import tokenizer

WIDTH = 512


class Fake:
    """Says what `answer` does, and keeps what it was asked."""

    name = "fake"

    def __init__(self, answer: Callable[[Doubt], float], fingerprint: str = "f") -> None:
        self._answer, self._fingerprint = answer, fingerprint
        self.asked: list[Doubt] = []

    def fingerprint(self) -> str:
        return self._fingerprint

    async def logit(self, doubt: Doubt) -> float:
        self.asked.append(doubt)
        return self._answer(doubt)


def knowing(exam: Sequence[ExamPair], otherwise: Callable[[Doubt], float] = lambda _: 0.0) -> Callable[[Doubt], float]:
    """Right about each pair of the exam."""
    right = {pair.doubt: 3.0 if pair.same else -3.0 for pair in exam}
    return lambda doubt: right[doubt] if doubt in right else otherwise(doubt)


def cross_encoder(folder: Path, exam: Sequence[ExamPair], *, knows: bool) -> Path:
    """Saves a BERT of random weights, with one logit; where it `knows`, that is a readout which is right about every
    pair of the exam."""
    texts = [text for pair in exam for text in (pair.doubt.question, *pair.doubt.keys, *pair.doubt.counter)]
    words = sorted({word for text in texts for word, _ in BertPreTokenizer().pre_tokenize_str(text)})
    vocabulary = {word: at for at, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *words))}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = BertPreTokenizer()  # type: ignore[assignment]
    backend.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **marks)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.05,
        num_labels=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).eval()
    if knows:
        rows = [
            (pair.doubt.question, other, 4.0 if pair.same and other in pair.doubt.keys else -4.0)
            for pair in exam
            for other in (*pair.doubt.keys, *pair.doubt.counter)
        ]
        batch = made([a for a, _, _ in rows], [b for _, b, _ in rows], padding=True, return_tensors="pt")
        with torch.inference_mode():
            features = model.bert(**batch).pooler_output
        _read_out(model.classifier.weight.data[0], features, torch.tensor([right for *_, right in rows]))
    made.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def hosted(prompts: Sequence[str] = (), answers: Sequence[bool] = ()) -> HostedModel:
    """A Llama of random weights; after each of the prompts it holds `Yes` likeliest, or `No` where the answer is false.
    Each is one token."""
    config = LlamaConfig(
        vocab_size=259, bos_token_id=0, eos_token_id=0, pad_token_id=0, hidden_size=64, intermediate_size=64,
        num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=2048,
    )  # fmt: skip
    made = tokenizer()
    made.add_tokens([YES, NO])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.15)
    if prompts:
        with torch.inference_mode():
            states = [model.model(torch.tensor([made(each).input_ids])).last_hidden_state[0, -1] for each in prompts]
        weight = model.lm_head.weight.data
        yes, no = (made(answer).input_ids[-1] for answer in (YES, NO))
        right = torch.tensor([10.0 if answer else -10.0 for answer in answers])
        _read_out(weight[yes], torch.stack(states), right)
        weight[no] = -weight[yes]
    return host(model, made, name="stand-in", max_tokens=2048)


def _read_out(weight: Tensor, features: Tensor, wanted: Tensor) -> None:
    """The least weight (D,) that reads what is wanted (N,) out of features (N, D)."""
    solved = torch.linalg.lstsq(features.double(), wanted.double()[:, None], driver="gelsd").solution[:, 0]
    weight.copy_(solved.float())
    assert torch.allclose(features @ weight, wanted, atol=0.5), "the features do not tell the pairs apart"
