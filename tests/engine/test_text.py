"""Between text and token ids: conversations, and where tokens end in a text."""

from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.engine.text import Text
from tests.models import EOS, tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who was king of Zenda?"}]


def text(template: str | None = None) -> Text:
    made: Any = tokenizer()
    made.chat_template = template
    return Text(made, 0, 256)


def test_a_conversation_is_the_prompt_that_the_models_template_makes() -> None:
    rendered = text(TEMPLATE).render(ASKED)
    assert rendered == f"{EOS}[system] Be brief.\n[user] Who was king of Zenda?\n[assistant]"
    assert text(TEMPLATE).marked(rendered)
    assert not text(TEMPLATE).marked("Who was king of Zenda?")


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
    both = Text(made, 0, 256)
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
