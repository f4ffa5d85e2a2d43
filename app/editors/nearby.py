"""Other questions about an edit's subject: generic ones with its name put in, which it is not to answer.

An edit's radius is calibrated against them. Some may ask the same in other words: whoever uses them lets a few in.
"""

from collections import defaultdict
from collections.abc import Sequence

from app.editors.base import BankPrompt
from app.editors.scope import find_who, surface

COUNT = 24


class Nearby:
    """Knows the generic questions that ship, one phrasing of each relation."""

    def __init__(self, bank: Sequence[BankPrompt]) -> None:
        by_relation: dict[str, list[str]] = defaultdict(list)
        for prompt in bank:
            if prompt.text.count(prompt.subject) == 1:
                by_relation[prompt.relation].append(prompt.text.replace(prompt.subject, "{}"))
        # phrasings change from one relation to the next, so that questions and open sentences are among them
        asked = [texts[at % len(texts)] for at, (_, texts) in enumerate(sorted(by_relation.items()))]
        self._templates = asked[:: max(1, len(asked) // COUNT)][:COUNT]
        self._words = frozenset(word for prompt in bank for word in prompt.words)

    def about(self, prompt: str, subject: str | None) -> tuple[str, ...]:
        """None where nobody is named: then there is no telling what else might be asked."""
        name = subject or surface(prompt, find_who(prompt, None, (), self._words))
        return () if name is None else tuple(template.replace("{}", name) for template in self._templates)
