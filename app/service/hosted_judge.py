"""The hosted model as a judge: it is asked, unedited and through the ordinary serving path, which of two answers it
holds likelier."""

import hashlib
from collections.abc import Sequence

from app.domain.errors import InvalidRequest
from app.domain.generation import MAX_TOP_LOGPROBS, GenerationParameters, Token
from app.engine.editions import Edition
from app.engine.owner import EngineOwner
from app.scope.doubt import Doubt
from app.service.serving import generation_of

YES, NO = "Yes", "No"
BARE = Edition("default", 0, ())
"""What it is asked under: no edit may change a judge's mind."""
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
"""Its two examples are none of the exam's."""
ASKED = "Do they ask the same? Answer Yes or No."


class HostedJudge:
    """`model` is the fingerprint of the model, in the precision and on the kind of device that it computes with."""

    name = "hosted"

    def __init__(self, owner: EngineOwner, model: str) -> None:
        self._owner, self._model = owner, model

    def fingerprint(self) -> str:
        form = self._prompt(Doubt("question", ("key", "paraphrase"), ("counter-example",)))
        return hashlib.sha256("\n".join((self._model, form, YES, NO)).encode()).hexdigest()

    async def logit(self, doubt: Doubt) -> float:
        """By how much likelier it holds Yes than No."""
        prompt = self._prompt(doubt)
        yes, no = self._tokens(prompt, YES), self._tokens(prompt, NO)
        told = await self._forced(prompt, yes)
        beside = {each.id: each.logprob for each in told[0].ranked}
        if len(no) == 1 and no[0] in beside:
            return _sum(told) - beside[no[0]]  # the same pass has told it: a chat model holds both answers likely
        return _sum(told) - _sum(await self._forced(prompt, no))

    def _tokens(self, prompt: str, answer: str) -> tuple[int, ...]:
        """An answer's own: how the model would go on after them says nothing."""
        ids = self._owner.engine.text.encode_target(prompt, answer)
        return ids[:-1] if ids[-1] in self._owner.engine.hosted.eos_ids else ids

    async def _forced(self, prompt: str, ids: tuple[int, ...]) -> tuple[Token, ...]:
        """These tokens after the prompt, whatever the model would say, and beside each those that it would."""
        parameters = GenerationParameters(forced=ids, max_new_tokens=len(ids), top_logprobs=MAX_TOP_LOGPROBS)
        return (await generation_of(self._owner, prompt, parameters, BARE, 0)).tokens

    def _prompt(self, doubt: Doubt) -> str:
        """As a chat where the model has a chat template."""
        known, *others = doubt.keys
        pairs = [*((each, YES) for each in others), *((each, NO) for each in doubt.counter)]
        examples = "".join(
            f"\nKnown question: {known}\nNew question: {each}\nDo they ask the same? {answer}\n"
            for each, answer in pairs
        )
        text = f"{TASK}{examples}\nKnown question: {known}\nNew question: {doubt.question}\n{ASKED}"
        try:
            return self._owner.engine.text.render([{"role": "user", "content": text}])
        except InvalidRequest:
            return f"{text}\n"


def _sum(tokens: Sequence[Token]) -> float:
    return sum(token.logprob for token in tokens)
