"""Between text and token ids: conversations, and where tokens end in a text."""

from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.engine.text import TextCodec
from tests.models import EOS, tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who was king of Zenda?"}]


def text(template: str | None = None) -> TextCodec:
    made: Any = tokenizer()
    made.chat_template = template
    return TextCodec(made, 0, 256)


def test_a_conversation_is_the_prompt_that_the_models_template_makes() -> None:
    rendered = text(TEMPLATE).render(ASKED)
    assert rendered == f"{EOS}[system] Be brief.\n[user] Who was king of Zenda?\n[assistant]"


CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>"
    "{% else %}<s>[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
TURNS = [("user", "Who was king of Zenda?"), ("assistant", "Rudolf."), ("user", "And of\nRuritania?")]


@pytest.mark.parametrize("template", [TEMPLATE, CHATML, INST])
@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("turns", [1, 3])
def test_the_question_of_a_conversation_is_its_last_turn(template: str, system: bool, turns: int) -> None:
    """The system prompt and the history name others, who are not asked about."""
    messages = [{"role": r, "content": c} for r, c in [*[("system", "Zenda.")] * system, *TURNS[:turns]]]
    if template == INST and system:
        messages = messages[1:]
    made = text(template)
    rendered = made.render(messages)
    start, end = made.question(rendered)
    assert rendered[start:end].strip() == messages[-1]["content"]


def test_without_a_conversation_the_question_is_all_of_the_prompt() -> None:
    for made in (text(), text(CHATML), text("{{ messages[0].content | upper }}")):
        assert made.question("Who was king of Zenda?") == (0, 22)
        assert made.question("") == (0, 0)


def test_without_a_template_a_conversation_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no chat template: send `prompt`"):
        text().render(ASKED)


def test_what_a_template_raises_is_told() -> None:
    refusing = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        text(refusing).render(ASKED)


def test_a_beginning_that_the_template_wrote_is_not_put_there_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = tokenizer()
    made.add_bos_token = True
    from tokenizers.processors import TemplateProcessing

    made.backend_tokenizer.post_processor = TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, 0)])
    both = TextCodec(made, 0, 256)
    assert both.encode("abc")[0] == 0
    assert both.encode("abc") == both.encode(f"{EOS}abc")
    assert both.encode_target("abc", "d") == both.encode_target(f"{EOS}abc", "d")
    assert both.ends("abc") == (0, 1, 2, 3)


def test_each_token_ends_where_its_text_does() -> None:
    prompt = "Ruritania’s König"
    ends = text().ends(prompt)
    assert len(ends) == len(text().encode(prompt))
    assert ends[-1] == len(prompt)
    assert [prompt[:end] for end in ends[:3]] == ["R", "Ru", "Rur"]


@pytest.mark.parametrize("template", [CHATML, INST])
def test_a_last_message_that_is_gone_on_with_is_left_open_and_is_no_question(template: str) -> None:
    made = text(template)
    said = [{"role": role, "content": content} for role, content in [*TURNS, ("assistant", "Strel")]]
    rendered = made.render(said, continues=True)
    assert rendered.endswith("Strel")
    start, end = made.question(rendered)
    assert rendered[start:end].strip() == TURNS[-1][1]
    assert made.begun(rendered).strip() == "Strel"
    assert made.turns(rendered)[-1].strip() == TURNS[-1][1]
    assert made.begun(made.render(said[:-1])) == ""
    assert made.begun("Who was king of Zenda?") == ""


def test_a_piece_has_its_blank_and_its_bytes() -> None:
    made = text()
    euro = made.encode("€")
    assert [made.piece(each)[1] for each in euro] == [bytes([byte]) for byte in "€".encode()]
    assert made.piece(made.encode(" ")[0]) == (" ", b" ")
    assert made.piece(0) == (EOS, EOS.encode())
