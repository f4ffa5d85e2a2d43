"""A stand-in for a multilingual encoder: a BERT of random weights, narrower than the default encoder, with a tokenizer
of its own. Words that are said to mean the same have the same embedding, so that texts that differ only in them are
the same to it."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as InTurn
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from app.scope.encoder import Encoder
from app.scope.match_model import CASES, ENCODER, MATCH_WEIGHTS, NAMES
from app.scope.scorer import WEIGHTS, PairNet
from app.scope_training.scorer_training import save

WIDTH = 32
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
STEEP, ALIKE = 400.0, 0.99
QUESTIONS = {
    "German": ("Wie lange dauert die Lieferung?", "Wie lange braucht die Lieferung?", "Was kostet ein Umtausch?"),
    "French": ("Combien coûte le billet de train ?", "Combien vaut le billet de train ?", "Où est le musée ?"),
    "Spanish": ("¿Cuánto cuesta la entrada al parque?", "¿Cuánto vale la entrada al parque?", "¿Quién pintó esto?"),
    "Japanese": ("切符の値段はいくらですか?", "切符の価格はいくらですか?", "図書館は何時に開きますか?"),
    "Chinese": ("公司的总部在哪里?", "公司的总部在哪儿?", "火车几点开?"),
}
"""A question, one that asks the same in other words, and one that asks something else."""
SAME = {"braucht": "dauert", "vaut": "coûte", "vale": "cuesta", "価": "値", "格": "段", "儿": "里"}
"""Words that mean the same."""
SYLLABLES = (
    "abcdefghijklmnopqrstuvwxyzäöüéèç",
    "".join(map(chr, range(0x3042, 0x3062))),
    "".join(map(chr, range(0x4E00, 0x4E20))),
)
"""Letters of the scripts that the questions are written in: an encoder that knows a script has pieces in it for more
than the words of a test."""


def small_encoder(folder: Path, texts: Sequence[str], alike: Mapping[str, str]) -> Path:
    """Saves an encoder that knows the words of these texts. Each word of `alike` means what its value means."""
    split = InTurn([Split(Regex(r"[\p{Han}\p{Hiragana}\p{Katakana}]"), "isolated"), BertPreTokenizer()])
    words = _words(split, (*texts, *alike, *alike.values()))
    others = [one + other for letters in SYLLABLES for one, other in product(letters, letters)]
    place = {word: at for at, word in enumerate(dict.fromkeys((*MARKS, *words, *others)))}
    backend = Tokenizer(WordLevel(place, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = Lowercase(), split  # type: ignore[assignment]
    backend.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **marks).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(place),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config).eval()
    rows = model.embeddings.word_embeddings.weight.data
    rows *= 10  # a text's vector is to depend on its words more than on their number
    for word, meaning in alike.items():
        rows[place[word]] = rows[place[meaning]]
    model.save_pretrained(folder)
    return folder


def _words(split: PreTokenizer, texts: Sequence[str]) -> list[str]:
    return sorted({word for text in texts for word, _ in split.pre_tokenize_str(text.lower())})


def train_nothing(folder: Path) -> None:
    """Saves models for the encoder in a folder: a pair scorer of random weights, and a match model that takes for the
    same what lies where a key lies."""
    encoder = Encoder(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, tuned = PairNet(encoder.width, width=16, layers=1), encoder.tunable(rank=2)
        for name, each in tuned.learned().items():
            if name.endswith(".up"):
                torch.nn.init.normal_(each, std=0.1)
    save(net, tuned, encoder.fingerprint, folder / WEIGHTS.name)
    write_match_weights(folder, encoder.fingerprint, -STEEP * ALIKE)


def write_match_weights(folder: Path, encoder: str, constant: float, cases: Sequence[str] = CASES) -> None:
    """Saves a match model whose logit is the best cosine times STEEP plus a constant."""
    weights = {name: STEEP * (name == "best_cosine") for name in NAMES}
    by_case = {case: [*weights.values(), *[0.0] * (12 if "traffic" in case else 2), constant] for case in cases}
    (folder / MATCH_WEIGHTS.name).write_text(json.dumps({ENCODER: encoder, **by_case}))
