"""The report of a sequence: its tokens as they come, its answer at the end, and the edit that gave the answer.

An edit in scope counts as having answered only if its target was said; otherwise the answer reports that it was not.
"""

from collections.abc import Collection, Sequence

from torch import Tensor

from app.domain.edit import edit_id_of
from app.domain.generation import FinishReason, Generation, Hit, RankedToken, Token
from app.domain.words import collapse_spaces, same_text
from app.editors.base import Decision
from app.engine.sampler import rank
from app.engine.sequence import Sequence as Running
from app.engine.text import TextCodec

_PARTIAL = "\N{REPLACEMENT CHARACTER}"


def ranked_of(text: TextCodec, logits: Tensor, chosen: int, count: int | None) -> tuple[RankedToken, ...]:
    """The chosen token, then the `count` likeliest alternatives; empty if `count` is None."""
    ranked = [] if count is None else rank(logits, chosen, count)
    return tuple(shown_as(text, token_id, logprob) for token_id, logprob in ranked)


def shown_as(text: TextCodec, token_id: int, logprob: float) -> RankedToken:
    """A candidate token with its text and bytes."""
    piece, raw = text.piece(token_id)
    return RankedToken(token_id, piece, logprob, raw, text.is_special(token_id))


def token_of(
    sequence: Running,
    token_id: int,
    shown: str,
    logprob: float,
    likeliest: bool,
    ranked: tuple[RankedToken, ...],
    text: TextCodec,
    *,
    ended: bool,
) -> Token:
    """The newest token of a sequence. `shown`: the text that becomes showable with it; `ended`: it is the end-of-text
    token that ends the answer."""
    return Token(
        id=token_id,
        text=shown,
        logprob=logprob,
        special=text.is_special(token_id),
        likeliest=likeliest,
        ranked=ranked,
        begins=len(sequence.answer.text) if ended else sequence.answer.begins,
        own="" if ended else sequence.answer.own,
        ends=ended,
    )


def hit_of(decision: Decision | None) -> Hit | None:
    if decision is None or decision.edit_id is None:
        return None
    return Hit(edit_id_of(decision.edit_id), decision.editor, decision.signals, decision.why)


def answer_of(
    sequence: Running, reason: FinishReason, target: Sequence[int], text: TextCodec, eos_ids: Collection[int]
) -> Generation:
    """The finished answer. `target` holds the token ids of the target of the edit in scope; empty if it is unknown."""
    hit = hit_of(sequence.decision)
    hits = () if hit is None else (hit,)
    said = not target or _target_was_said(sequence, reason, target, text, eos_ids)
    return Generation(
        text=sequence.answer.text,
        finish_reason=reason,
        prompt_tokens=sequence.prompt_tokens,
        tokens=tuple(sequence.tokens),
        seed=sequence.seed,
        revision=sequence.revision,
        hits=hits if said else (),
        not_given=() if said else hits,
        nearest=hit_of(sequence.nearest),
        uncertain=bool(sequence.scope_decision.uncertain),
    )


def _target_was_said(
    sequence: Running, reason: FinishReason, target: Sequence[int], text: TextCodec, eos_ids: Collection[int]
) -> bool:
    """True if the answer equals the target, or a beginning of it if the token limit or a stop text ended it."""
    assert sequence.decision is not None
    begun = sequence.decision.signals.get("answer_begun")
    wanted_ids = [each for each in target[0 if begun is None else int(begun.value) :] if each not in eos_ids]
    wanted, generated = text.continuation(wanted_ids), sequence.generated
    ends = next((at for at, each in enumerate(generated) if each in eos_ids), None)
    if ends is not None:  # with `ignore_eos` generation goes on; what follows does not count
        return same_text(text.continuation(generated[:ends]), wanted)
    if reason == "stop_sequence":
        cuts = [at for stop in sequence.parameters.stop if (at := wanted.find(stop)) >= 0]
        return same_text(sequence.answer.text, wanted[: min(cuts, default=len(wanted))])
    if generated == wanted_ids[: len(generated)]:
        return True
    so_far = collapse_spaces(sequence.answer.text.rstrip(_PARTIAL))
    return bool(so_far) and collapse_spaces(wanted).startswith(so_far)
