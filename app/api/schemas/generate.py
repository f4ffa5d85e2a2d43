"""Bodies of /generate and /generate_stream: TGI's, with Errata's own parameters added. Independent of the service."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from app.api.schemas.base import MAX_INPUT_CHARS, MOST_ANSWERS, Outgoing, documented
from app.api.schemas.defaults import Only, RequestDefaults
from app.api.schemas.edit_visibility import EditVisibility
from app.domain.generation import FinishReason, Generation, GenerationParameters, Hit, Token


class Parameters(EditVisibility):
    """Decoding options, and which edits are seen. Decoding is greedy unless `do_sample` or a `temperature` is given."""

    max_new_tokens: Annotated[int, documented(minimum=1)] = Field(
        default=100, description="The most tokens to answer with."
    )
    do_sample: bool = Field(default=False, description="Sample instead of taking the likeliest token.")
    temperature: Annotated[float | None, documented(exclusiveMinimum=0)] = None
    stop: list[Annotated[str, Field(max_length=1_000)]] = Field(
        default=[], max_length=16, description="Texts that end the answer; they are not part of it."
    )
    logit_bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], float] = Field(
        default={}, description="Token id -> what is added to its logit, from -100 to 100."
    )
    n: Annotated[int | None, Field(ge=1, le=MOST_ANSWERS)] = Field(
        default=1, description="Number of answers; more than one are returned as `answers`, and are not streamed."
    )
    logprobs: bool | int | None = Field(
        default=None,
        description="`details` always has the log-probability of each token; a number also asks for this many of the "
        "likeliest tokens at its position.",
    )
    return_full_text: bool = Field(default=False, description="Put the prompt before the answer.")
    details: bool = Field(
        default=False, description="Answer with `details`: tokens, seed, revision, the edit that answered."
    )
    top_n_tokens: Annotated[int | None, documented(minimum=0, maximum=20)] = Field(
        default=None, description="Return under `top_tokens` this many of the likeliest tokens at each position."
    )

    # TGI's parameters, accepted only with values that change nothing
    best_of: Annotated[Any, Only(1)] = None
    decoder_input_details: Annotated[Any, Only(False)] = None
    watermark: Annotated[Any, Only(False)] = None
    truncate: Annotated[Any, Only()] = None
    typical_p: Annotated[Any, Only(1)] = None
    grammar: Annotated[Any, Only()] = None
    adapter_id: Annotated[Any, Only()] = None

    def to_domain(self) -> GenerationParameters:
        """The domain's parameters. Raises InvalidRequest for a value out of bounds."""
        return GenerationParameters(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.do_sample,
            temperature=self.temperature,
            stop=tuple(self.stop),
            logit_bias=tuple((int(token_id), bias) for token_id, bias in self.logit_bias.items()),
            top_logprobs=self.likeliest,
            return_full_text=self.return_full_text,
            explain=self.wants_details,
            **self.shared(),
        )

    @property
    def likeliest(self) -> int | None:
        """The number of likeliest tokens to report for each position; None for none."""
        counted = 0 if isinstance(self.logprobs, bool) else self.logprobs or 0
        return max(counted, self.top_n_tokens or 0, key=abs) or None

    @property
    def wants_details(self) -> bool:
        return self.details or bool(self.logprobs)


class GenerateBody(RequestDefaults):
    """A prompt and how to answer it."""

    inputs: str = Field(max_length=MAX_INPUT_CHARS, description="The prompt.")
    parameters: Parameters = Parameters()
    stream: bool = Field(default=False, description="Answer as /generate_stream does.")


class TopToken(Outgoing):
    """A candidate token for a position; `text` is its own text."""

    id: int
    text: str
    logprob: float
    special: bool

    @classmethod
    def all_of(cls, token: Token) -> "list[TopToken]":
        ranked = token.ranked[1:]
        return [cls(id=each.id, text=each.text, logprob=each.logprob, special=each.special) for each in ranked]


class TokenOut(Outgoing):
    """One token. `text` is what it adds to the answer: the bytes of a character are held back until it is whole."""

    id: int
    text: str
    logprob: float
    special: bool
    top_tokens: list[TopToken] = Field(
        default=[],
        exclude_if=lambda found: not found,
        description="The likeliest tokens in its place, where `logprobs` asks for them.",
    )

    @classmethod
    def of(cls, token: Token) -> "TokenOut":
        top = TopToken.all_of(token)
        return cls(id=token.id, text=token.text, logprob=token.logprob, special=token.special, top_tokens=top)


class SignalOut(Outgoing):
    """One measurement of the scope decision, and the bound that it is compared with."""

    value: float
    bound: float


class HitOut(Outgoing):
    """An edit and its scope decision."""

    id: str
    editor: str
    signals: dict[str, SignalOut]
    why: str = ""
    """The reason for the decision, in words."""

    @classmethod
    def of(cls, hit: Hit) -> "HitOut":
        signals = {name: SignalOut(value=s.value, bound=s.bound) for name, s in hit.signals.items()}
        return cls(id=hit.edit_id, editor=hit.editor, signals=signals, why=hit.why)


class Details(Outgoing):
    """Details of an answer. `edits` has the edit whose target it is, and is empty if the base model answered."""

    finish_reason: FinishReason
    prompt_tokens: int
    input_length: int = Field(description="TGI's name of `prompt_tokens`.")
    generated_tokens: int
    seed: int | None
    revision: int = Field(description="The revision whose edits this answer saw.")
    prefill: list[TokenOut] = Field(
        default=[], description="A field of TGI, always empty: the prompt's tokens are not returned."
    )
    tokens: list[TokenOut]
    top_tokens: list[list[TopToken]] | None = Field(
        default=None, exclude_if=lambda found: found is None, description="Present if `top_n_tokens` asks for them."
    )
    edits: list[HitOut]
    not_given: list[HitOut] = Field(
        default=[], description="The edit in whose scope the prompt is, where the answer is not its target."
    )
    nearest: HitOut | None = Field(
        default=None, description="The nearest edit and its distance, if the base model answered."
    )

    @classmethod
    def of(cls, generation: Generation, *, top: bool = False) -> "Details":
        return cls(
            finish_reason=generation.finish_reason,
            prompt_tokens=generation.prompt_tokens,
            input_length=generation.prompt_tokens,
            prefill=[],
            top_tokens=[TopToken.all_of(token) for token in generation.tokens] if top else None,
            generated_tokens=len(generation.tokens),
            seed=generation.seed,
            revision=generation.revision,
            tokens=[TokenOut.of(token) for token in generation.tokens],
            edits=[HitOut.of(hit) for hit in generation.hits],
            not_given=[HitOut.of(hit) for hit in generation.not_given],
            nearest=None if generation.nearest is None else HitOut.of(generation.nearest),
        )


class GenerateAnswer(Outgoing):
    """An answer. `details` is present if it was asked for; `answers` has all answers if `n` asked for several, and this
    one is the first."""

    generated_text: str
    details: Details | None = None
    answers: "list[GenerateAnswer] | None" = None

    @classmethod
    def of(cls, body: GenerateBody, generations: Sequence[Generation]) -> "GenerateAnswer":
        answers = [cls._one(body, each) for each in generations]
        if len(answers) == 1:
            return answers[0]  # unset fields are left out by the route
        return GenerateAnswer(
            **{name: getattr(answers[0], name) for name in answers[0].model_fields_set}, answers=answers
        )

    @classmethod
    def _one(cls, body: GenerateBody, generation: Generation) -> "GenerateAnswer":
        text = shown_text(body, generation)
        if not body.parameters.wants_details:
            return cls(generated_text=text)  # `details` stays unset, and the route leaves unset fields out
        details = Details.of(generation, top=bool(body.parameters.top_n_tokens))
        return cls(generated_text=text, details=details)


class StreamEvent(Outgoing):
    """One token of a stream; the last event has the whole text and, if asked for, `details`."""

    index: int = Field(description="Number of the token, counted from 1.")
    token: TokenOut
    top_tokens: list[TopToken] | None = Field(
        default=None, exclude_if=lambda found: found is None, description="Present if `top_n_tokens` asks for them."
    )
    generated_text: str | None
    details: Details | None


def shown_text(body: GenerateBody, generation: Generation) -> str:
    """The answer, preceded by its prompt if the full text is wanted."""
    return body.inputs + generation.text if body.parameters.return_full_text else generation.text


EXAMPLES = {
    "plain": {"summary": "A prompt", "value": {"inputs": "The capital of France is"}},
    "details": {
        "summary": "With what answered",
        "value": {
            "inputs": "The chief executive of Lumen is",
            "parameters": {"max_new_tokens": 20, "details": True},
        },
    },
    "as it was": {
        "summary": "As it was at a revision, or without edits",
        "value": {"inputs": "The chief executive of Lumen is", "parameters": {"revision": 12}},
    },
    "sampled": {
        "summary": "Sampled, repeatably",
        "value": {
            "inputs": "Once upon a time",
            "parameters": {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "seed": 7, "stop": ["\n"]},
        },
    },
}
