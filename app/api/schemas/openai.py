"""Request bodies of /v1: OpenAI's, with Errata's own parameters added. Independent of the service.

Fields that would change the answer but are not supported (tools, images) are refused by name; fields that only label a
request for OpenAI's own records are accepted and ignored.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from app.api.schemas.base import MAX_INPUT_CHARS, MOST_ANSWERS, documented
from app.api.schemas.defaults import Only, RequestDefaults
from app.api.schemas.edit_visibility import EditVisibility
from app.api.schemas.formats import ResponseFormat
from app.api.schemas.messages import Message, turns_of
from app.domain.errors import InvalidRequest
from app.domain.generation import GenerationParameters

Input = Annotated[str, Field(max_length=MAX_INPUT_CHARS)]
Stop = Annotated[str, Field(max_length=1_000)]


class StreamOptions(RequestDefaults):
    include_usage: bool = False
    continuous_usage_stats: bool = Field(
        default=False, description="With `include_usage`: send the usage so far in every chunk, as vLLM does."
    )
    include_obfuscation: bool = False


class _OpenRequest(EditVisibility):
    """The parameters of both routes, including Errata's own, which OpenAI's clients send as `extra_body`.

    As with OpenAI, the default temperature is 1, and 0 is greedy.
    """

    model: str | None = Field(default=None, description="The model's name as `/v1/models` lists it; may be left out.")
    temperature: Annotated[float | None, documented(minimum=0, maximum=2)] = 1.0
    n: Annotated[int | None, Field(ge=1, le=MOST_ANSWERS, description="The number of answers to each prompt.")] = 1
    stop: Annotated[list[Stop], Field(max_length=16)] | Stop | None = None
    logit_bias: dict[str, float] | None = Field(default=None, description="Token id -> -100 to 100.")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    details: bool = Field(
        default=False, description="Errata's own: `errata.nearest` names the edit that was nearest, where none answers."
    )

    # for OpenAI's own records
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    def parameters(self, most: int, top_logprobs: int | None) -> GenerationParameters:
        """The domain's parameters. Raises InvalidRequest for a value out of bounds. `most` is the maximum number of
        tokens."""
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise InvalidRequest("`temperature` must be between 0 and 2.")
        warm = self.temperature is None or self.temperature > 0
        return GenerationParameters(
            max_new_tokens=most,
            do_sample=warm,
            temperature=(1.0 if self.temperature is None else self.temperature) if warm else None,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            logit_bias=tuple((_token_id(key), bias) for key, bias in (self.logit_bias or {}).items()),
            top_logprobs=top_logprobs,
            token_logprobs=top_logprobs is not None,
            explain=self.details,
            **self.shared(),
        )

    @property
    def answers(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def counts_as_it_goes(self) -> bool:
        """True if every chunk of a stream has the usage so far."""
        options = self.stream_options
        return options is not None and options.include_usage and options.continuous_usage_stats


def _token_id(key: str) -> int:
    if not key.isdecimal():
        raise InvalidRequest(f"`logit_bias` takes token ids; {key!r} is none.")
    return int(key)


class CompletionBody(_OpenRequest):
    """`POST /v1/completions`: prompts as they are, without a template."""

    prompt: Input | Annotated[list[Input], Field(min_length=1, max_length=MOST_ANSWERS)] = Field(
        description="One text, or several; token ids are not taken."
    )
    max_tokens: Annotated[int | None, documented(minimum=1)] = Field(default=16, description="Tokens of an answer.")
    logprobs: Annotated[int | None, Field(ge=0, le=5)] = Field(
        default=None, description="The number of likeliest tokens to return in each place."
    )
    best_of: int | None = None
    suffix: Annotated[Any, Only("")] = None
    echo: bool | None = Field(default=False, description="Put the prompt before the answer.")

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def to_domain(self) -> GenerationParameters:
        if self.best_of not in (None, self.answers):
            raise InvalidRequest("`best_of` is not done here: leave it out, and ask for `n` answers.")
        if len(self.prompts) * self.answers > MOST_ANSWERS:
            raise InvalidRequest(f"`n` answers to each prompt may be {MOST_ANSWERS} in all: send fewer at once.")
        if self.echo and self.logprobs is not None:
            raise InvalidRequest("`echo` has no `logprobs` here: those of a prompt are not computed.")
        return self.parameters(16 if self.max_tokens is None else self.max_tokens, self.logprobs)


class ChatBody(_OpenRequest):
    """`POST /v1/chat/completions`: a conversation, rendered by the model's own chat template."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1_000)]
    max_completion_tokens: Annotated[int | None, documented(minimum=1)] = Field(
        default=None, description="Tokens of an answer; as many as there is room for if left out."
    )
    max_tokens: Annotated[int | None, documented(minimum=1)] = Field(default=None, description="The older name.")
    logprobs: bool | None = Field(default=False, description="Tell how likely each token was.")
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    add_generation_prompt: bool = Field(default=True, description="`false`: the same as `continue_final_message`.")
    continue_final_message: bool = Field(
        default=False, description="Go on with the last message, which is the assistant's, in place of a new one."
    )

    response_format: ResponseFormat | None = Field(
        default=None, description="The form of the answer: text, a JSON object, or JSON of a schema."
    )

    # OpenAI's parameters, accepted only with values that change nothing
    tools: Annotated[Any, Only([])] = None
    tool_choice: Annotated[Any, Only("none", "auto")] = None
    parallel_tool_calls: bool = True
    functions: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only("none", "auto")] = None
    modalities: Annotated[Any, Only(["text"])] = None
    audio: Annotated[Any, Only()] = None
    prediction: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only("none")] = None
    verbosity: Annotated[Any, Only("medium")] = None
    web_search_options: Annotated[Any, Only()] = None

    @property
    def continues(self) -> bool:
        """True if the last message is continued. Raises InvalidRequest if it is not the assistant's."""
        continues = self.continue_final_message or not self.add_generation_prompt
        if continues and self.messages[-1].role != "assistant":
            raise InvalidRequest("`continue_final_message` goes on with a message of the assistant's: it must be last.")
        return continues

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The turns in the form of chat templates."""
        return turns_of(self.messages)

    def to_domain(self, room: Callable[[], int]) -> GenerationParameters:
        """The domain's parameters. `room` returns the most tokens that an answer may have."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("`top_logprobs` needs `logprobs: true`.")
        most = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        top_logprobs = (self.top_logprobs or 0) if self.logprobs else None
        parameters = self.parameters(room() if most is None else most, top_logprobs)
        return replace(
            parameters, json_schema=None if self.response_format is None else self.response_format.schema_text
        )


COMPLETIONS = {
    "plain": {"summary": "A prompt, greedily", "value": {"prompt": "The capital of France is", "temperature": 0}},
    "several": {
        "summary": "Several answers to several prompts, streamed",
        "value": {"prompt": ["Once upon a time", "It was a"], "n": 2, "max_tokens": 20, "seed": 7, "stream": True},
    },
}
CHATS = {
    "plain": {
        "summary": "A question",
        "value": {"messages": [{"role": "user", "content": "Who is the chief executive of Lumen?"}], "temperature": 0},
    },
    "as it was": {
        "summary": "Without edits (`extra_body` in OpenAI's client)",
        "value": {"messages": [{"role": "user", "content": "Who leads Lumen?"}], "edits": "off"},
    },
}
