"""The hosted model as a judge: it is asked, unedited and through the ordinary serving path, which of two answers is
likelier."""

import hashlib
from collections.abc import Sequence

from app.domain.errors import InvalidRequest
from app.domain.generation import MAX_TOP_LOGPROBS, GenerationParameters, Token
from app.engine.client import EngineClient
from app.engine.editions import Edition
from app.scope.doubt import Doubt
from app.service.generation_path import generation_of

YES, NO = "Yes", "No"
BARE = Edition("default", 0, ())
"""The edition for its questions: no edit may influence a judge."""
TASK = """\
You compare questions that customers ask. Two questions ask the same if one answer is right for both, however \
differently they are worded. They do not if anything of weight differs: who or what is meant, the time, the number, \
the direction, what is wanted to know about it, or a "not".

Known question: How do I pair my headset with a phone?
New question: my earphones should talk to my mobile, what do I press
Do they ask the same? Yes

Known question: How do I pair my headset with a phone?
New question: How do I unpair my headset from a phone?
Do they ask the same? No
"""
"""The instruction, whose two examples do not occur in the exam."""
ASKED = "Do they ask the same? Answer Yes or No."


class HostedJudge:
    """`model` is the fingerprint of the model, with its precision and the kind of its device."""

    name = "hosted"

    def __init__(self, engine: EngineClient, model: str) -> None:
        self._engine, self._model = engine, model

    def fingerprint(self) -> str:
        form = self._prompt(Doubt("question", ("key", "paraphrase"), ("counter-example",)))
        return hashlib.sha256("\n".join((self._model, form, YES, NO)).encode()).hexdigest()

    async def logit(self, doubt: Doubt) -> float:
        """The log-odds of Yes against No."""
        prompt = self._prompt(doubt)
        yes, no = self._tokens(prompt, YES), self._tokens(prompt, NO)
        tokens = await self._forced(prompt, yes)
        logprobs = {each.id: each.logprob for each in tokens[0].ranked}
        if len(no) == 1 and no[0] in logprobs:
            return _sum(tokens) - logprobs[no[0]]  # the same pass includes it: a chat model holds both answers likely
        return _sum(tokens) - _sum(await self._forced(prompt, no))

    def _tokens(self, prompt: str, answer: str) -> tuple[int, ...]:
        """The tokens of an answer, without an end-of-text: the model's continuation after it does not matter."""
        ids = self._engine.text.encode_target(prompt, answer)
        return ids[:-1] if ids[-1] in self._engine.eos_ids else ids

    async def _forced(self, prompt: str, ids: tuple[int, ...]) -> tuple[Token, ...]:
        """These tokens, forced after the prompt, each with the tokens that the model itself would have chosen."""
        parameters = GenerationParameters(forced=ids, max_new_tokens=len(ids), top_logprobs=MAX_TOP_LOGPROBS)
        return (await generation_of(self._engine, prompt, parameters, BARE, 0)).tokens

    def _prompt(self, doubt: Doubt) -> str:
        """The question for the model, as a chat if the model has a chat template."""
        known, *others = doubt.keys
        pairs = [*((each, YES) for each in others), *((each, NO) for each in doubt.counter)]
        examples = "".join(
            f"\nKnown question: {known}\nNew question: {each}\nDo they ask the same? {answer}\n"
            for each, answer in pairs
        )
        text = f"{TASK}{examples}\nKnown question: {known}\nNew question: {doubt.question}\n{ASKED}"
        try:
            return self._engine.text.render([{"role": "user", "content": text}])
        except InvalidRequest:
            return f"{text}\n"


def _sum(tokens: Sequence[Token]) -> float:
    return sum(token.logprob for token in tokens)
