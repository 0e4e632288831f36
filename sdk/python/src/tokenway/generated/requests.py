"""What requests are made of, as plain dicts. Written by sdk/generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing_extensions import Required

    from . import models


class ImageUrlParam(TypedDict, total=False):
    """Where an image is."""

    # A data URL in base64, or an http(s) URL on a host that the gateway fetches from.
    url: Required[str]
    # `auto` or `high`: images are always seen as the model was made to see them. Default `auto`.
    detail: str


class ContentPartParam(TypedDict, total=False):
    """One part of a message's content."""

    # `text`, or `image_url` for a model that sees.
    type: Required[str]
    # The text.
    text: str
    # The image: PNG, JPEG, WebP, or the first frame of a GIF.
    image_url: ImageUrlParam | models.ImageUrl


class CalledFunctionParam(TypedDict, total=False):
    """What a tool call called."""

    # The function's name.
    name: Required[str]
    # Its arguments, as a JSON text; the template sees the value.
    arguments: Required[str]


class ToolCallParam(TypedDict, total=False):
    """A call of a tool that an assistant made."""

    # Names the call in the tool's answer.
    id: Required[str]
    # `function`.
    type: Required[str]
    # What was called.
    function: Required[CalledFunctionParam | models.CalledFunction]


class MessageParam(TypedDict, total=False):
    """One message of a conversation."""

    # Who speaks.
    role: Required[Literal["system", "developer", "user", "assistant", "tool"]]
    # What is said. Text parts without images between them are joined by newlines. An assistant's message with
    # `tool_calls` may lack it.
    content: str | Sequence[ContentPartParam | models.ContentPart] | None
    # The speaker's name, for templates that print it.
    name: str
    # The call that a `tool` message answers.
    tool_call_id: str
    # The calls that an assistant made.
    tool_calls: Sequence[ToolCallParam | models.ToolCall]
    # A refusal of the assistant, for templates that print it.
    refusal: str


class StreamOptionsParam(TypedDict, total=False):
    """What a stream carries beside the answer."""

    # Sends one more event before `[DONE]`, with the usage and without choices.
    include_usage: bool


class ResponseFormatParam(TypedDict, total=False):
    """The format of the answer."""

    # `text`, the only format served.
    type: Required[str]


class ChatRequestParam(TypedDict, total=False):
    """A conversation to go on with. Every field but `model` and `messages` may be absent or null."""

    # Id of the model, as `GET /v1/models` lists it.
    model: Required[str]
    # The conversation so far, oldest message first.
    messages: Required[Sequence[MessageParam | models.Message]]
    # Longest answer in tokens; by default whatever the context leaves.
    max_completion_tokens: int | None
    # The older name of `max_completion_tokens`.
    max_tokens: int | None
    # No end of sequence before this many tokens. Default 0.
    min_tokens: int | None
    # Divides the logits; 0 takes the most probable token. Default 1.
    temperature: float | None
    # Keeps the smallest set of tokens whose probabilities reach this sum. Default 1.
    top_p: float | None
    # Keeps this many of the most probable tokens; 0 and -1 keep all. Default 0.
    top_k: int | None
    # Drops tokens less probable than this fraction of the most probable one. Default 0.
    min_p: float | None
    # Makes the random draw repeatable. By default another one for every request.
    seed: int | None
    # How many answers to give. Default 1.
    n: int | None
    # Texts that end the answer and are not part of it: one, or up to 16, each of 1 to 256 bytes.
    stop: str | Sequence[str] | None
    # Token ids that end the answer, beside the model's own.
    stop_token_ids: Sequence[int] | None
    # Goes on after the model's end of sequence. Default false.
    ignore_eos: bool | None
    # Subtracted once from the logit of every token generated before. Default 0.
    presence_penalty: float | None
    # Subtracted from a token's logit for each time it was generated before. Default 0.
    frequency_penalty: float | None
    # Divides positive and multiplies negative logits of tokens in prompt or answer. Default 1.
    repetition_penalty: float | None
    # Added to the logits of token ids: values from -100 to 100, at most 1024 entries.
    logit_bias: Mapping[str, float] | None
    # Gives the log probability of every token. Default false.
    logprobs: bool | None
    # Gives as many of the most probable alternatives, too; needs `logprobs`.
    top_logprobs: int | None
    # What the stream carries beside the answer; needs `stream`.
    stream_options: StreamOptionsParam | models.StreamOptions | None
    # The format of the answer.
    response_format: ResponseFormatParam | models.ResponseFormat | None
    # More variables for the model's chat template.
    chat_template_kwargs: Mapping[str, Any] | None
    # The caller's own name for the person. Not used.
    user: str | None


class CompletionRequestParam(TypedDict, total=False):
    """Prompts to go on with. Every field but `model` and `prompt` may be absent or null."""

    # Id of the model, as `GET /v1/models` lists it.
    model: Required[str]
    # Text or token ids, one prompt or several; at most 64 answers in all.
    prompt: Required[str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]]
    # Longest answer in tokens. Default 16.
    max_tokens: int | None
    # No end of sequence before this many tokens. Default 0.
    min_tokens: int | None
    # Divides the logits; 0 takes the most probable token. Default 1.
    temperature: float | None
    # Keeps the smallest set of tokens whose probabilities reach this sum. Default 1.
    top_p: float | None
    # Keeps this many of the most probable tokens; 0 and -1 keep all. Default 0.
    top_k: int | None
    # Drops tokens less probable than this fraction of the most probable one. Default 0.
    min_p: float | None
    # Makes the random draw repeatable. By default another one for every request.
    seed: int | None
    # How many answers to give to each prompt. Default 1.
    n: int | None
    # Must equal `n`: the gateway does not rank answers.
    best_of: int | None
    # Texts that end the answer and are not part of it: one, or up to 16, each of 1 to 256 bytes.
    stop: str | Sequence[str] | None
    # Token ids that end the answer, beside the model's own.
    stop_token_ids: Sequence[int] | None
    # Goes on after the model's end of sequence. Default false.
    ignore_eos: bool | None
    # Subtracted once from the logit of every token generated before. Default 0.
    presence_penalty: float | None
    # Subtracted from a token's logit for each time it was generated before. Default 0.
    frequency_penalty: float | None
    # Divides positive and multiplies negative logits of tokens in prompt or answer. Default 1.
    repetition_penalty: float | None
    # Added to the logits of token ids: values from -100 to 100, at most 1024 entries.
    logit_bias: Mapping[str, float] | None
    # Gives the log probability of every token and of as many alternatives.
    logprobs: int | None
    # Puts the prompt before each answer; for prompts given as text, and without `logprobs`. Default false.
    echo: bool | None
    # What the stream carries beside the answers; needs `stream`.
    stream_options: StreamOptionsParam | models.StreamOptions | None
    # The caller's own name for the person. Not used.
    user: str | None
