"""The frames in which a question may be put: bare, between `Question:` and `Answer:`, with a trailing blank, as a chat.

A value that tips the answer in one frame may fail to in another. Each edit is therefore tried in all of them before it
goes live, and is silent in those where it failed.
"""

from collections.abc import Mapping
from contextlib import suppress

from app.domain.errors import InvalidRequest
from app.engine.text import TextCodec

FRAMES: Mapping[str, tuple[str, str]] = {
    "bare": ("", ""),
    "question and answer": ("Question: ", " Answer:"),
    "question and answer on two lines": ("Question: ", "\nAnswer:"),
    "q and a": ("Q: ", "\nA:"),
}
OTHER, CHAT, BLANK, NO_BLANK = "other", "chat", "blank at the end", "no blank at the end"


def stem_of(prompt: str, text: TextCodec) -> str:
    """A prompt as edits see it: a bare prompt without trailing white space, which belongs to the answer; a rendered
    conversation unchanged."""
    return prompt if text.is_chat(prompt) else prompt.rstrip() or prompt


def frames_of(prompt: str, text: TextCodec) -> frozenset[str]:
    """Names of the frames that a prompt is in."""
    if text.is_chat(prompt):
        return frozenset((CHAT,))
    frame, _ = _framed(prompt.rstrip())
    return frozenset((frame, BLANK if prompt != prompt.rstrip() else NO_BLANK))


def _framed(stem: str) -> tuple[str, str]:
    """(name of the frame, question inside it)."""
    for name, (before, after) in FRAMES.items():
        if after and stem.startswith(before) and stem.endswith(after) and len(stem) > len(before) + len(after):
            return name, stem[len(before) : len(stem) - len(after)].strip()
    return OTHER if stem.endswith(":") else "bare", stem


def other_frames(prompt: str, text: TextCodec) -> dict[str, tuple[str, ...]]:
    """Frame name -> the prompt's question in that frame, for all frames that the prompt is not in. A later turn of a
    conversation depends on its history and gets none."""
    if text.is_chat(prompt):
        turns = text.turns(prompt)
        return {"bare": (turns[0].strip(),)} if len(turns) == 1 and turns[0].strip() else {}
    stem, mine = prompt.rstrip(), frames_of(prompt, text)
    _, question = _framed(stem)
    prompts_by_frame: dict[str, tuple[str, ...]] = {}
    if question.endswith(("?", "？")):
        prompts_by_frame |= {name: (f"{before}{question}{after}",) for name, (before, after) in FRAMES.items()}
    prompts_by_frame |= {BLANK: (f"{stem} ",), NO_BLANK: (stem,)}
    with suppress(InvalidRequest):  # no chat template, or one that rejects this message
        prompts_by_frame[CHAT] = (text.render([{"role": "user", "content": question}]),)
    return {name: prompts for name, prompts in prompts_by_frame.items() if name not in mine}
