from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.chat_request_chat_template_kwargs import ChatRequestChatTemplateKwargs
    from ..models.chat_request_logit_bias import ChatRequestLogitBias
    from ..models.message import Message
    from ..models.response_format import ResponseFormat
    from ..models.stream_options import StreamOptions


T = TypeVar("T", bound="ChatRequest")


@_attrs_define
class ChatRequest:
    """A conversation to go on with. Every field but `model` and `messages` may be absent or null."""

    model: str
    """ Id of the model, as `GET /v1/models` lists it. """
    messages: list[Message]
    """ The conversation so far, oldest message first. """
    max_completion_tokens: int | Unset = UNSET
    """ Longest answer in tokens; by default whatever the context leaves. """
    max_tokens: int | Unset = UNSET
    """ The older name of `max_completion_tokens`. """
    min_tokens: int | Unset = UNSET
    """ No end of sequence before this many tokens. Default 0. """
    temperature: float | Unset = UNSET
    """ Divides the logits; 0 takes the most probable token. Default 1. """
    top_p: float | Unset = UNSET
    """ Keeps the smallest set of tokens whose probabilities reach this sum. Default 1. """
    top_k: int | Unset = UNSET
    """ Keeps this many of the most probable tokens; 0 and -1 keep all. Default 0. """
    min_p: float | Unset = UNSET
    """ Drops tokens less probable than this fraction of the most probable one. Default 0. """
    seed: int | Unset = UNSET
    """ Makes the random draw repeatable. By default another one for every request. """
    n: int | Unset = UNSET
    """ How many answers to give. Default 1. """
    stop: list[str] | str | Unset = UNSET
    """ Texts that end the answer and are not part of it: one, or up to 16, each of 1 to 256 bytes. """
    stop_token_ids: list[int] | Unset = UNSET
    """ Token ids that end the answer, beside the model's own. """
    ignore_eos: bool | Unset = UNSET
    """ Goes on after the model's end of sequence. Default false. """
    presence_penalty: float | Unset = UNSET
    """ Subtracted once from the logit of every token generated before. Default 0. """
    frequency_penalty: float | Unset = UNSET
    """ Subtracted from a token's logit for each time it was generated before. Default 0. """
    repetition_penalty: float | Unset = UNSET
    """ Divides positive and multiplies negative logits of tokens in prompt or answer. Default 1. """
    logit_bias: ChatRequestLogitBias | Unset = UNSET
    """ Added to the logits of token ids: values from -100 to 100, at most 1024 entries. """
    logprobs: bool | Unset = UNSET
    """ Gives the log probability of every token. Default false. """
    top_logprobs: int | Unset = UNSET
    """ Gives as many of the most probable alternatives, too; needs `logprobs`. """
    stream: bool | Unset = UNSET
    """ Sends the answer as server-sent events while it is made. Default false. """
    stream_options: StreamOptions | Unset = UNSET
    """ What a stream carries beside the answer. """
    response_format: ResponseFormat | Unset = UNSET
    """ The format of the answer. """
    chat_template_kwargs: ChatRequestChatTemplateKwargs | Unset = UNSET
    """ More variables for the model's chat template. """
    user: str | Unset = UNSET
    """ The caller's own name for the person. Not used. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        model = self.model

        messages = []
        for messages_item_data in self.messages:
            messages_item = messages_item_data.to_dict()
            messages.append(messages_item)

        max_completion_tokens = self.max_completion_tokens

        max_tokens = self.max_tokens

        min_tokens = self.min_tokens

        temperature = self.temperature

        top_p = self.top_p

        top_k = self.top_k

        min_p = self.min_p

        seed = self.seed

        n = self.n

        stop: list[str] | str | Unset
        if isinstance(self.stop, Unset):
            stop = UNSET
        elif isinstance(self.stop, list):
            stop = self.stop

        else:
            stop = self.stop

        stop_token_ids: list[int] | Unset = UNSET
        if not isinstance(self.stop_token_ids, Unset):
            stop_token_ids = self.stop_token_ids

        ignore_eos = self.ignore_eos

        presence_penalty = self.presence_penalty

        frequency_penalty = self.frequency_penalty

        repetition_penalty = self.repetition_penalty

        logit_bias: dict[str, Any] | Unset = UNSET
        if not isinstance(self.logit_bias, Unset):
            logit_bias = self.logit_bias.to_dict()

        logprobs = self.logprobs

        top_logprobs = self.top_logprobs

        stream = self.stream

        stream_options: dict[str, Any] | Unset = UNSET
        if not isinstance(self.stream_options, Unset):
            stream_options = self.stream_options.to_dict()

        response_format: dict[str, Any] | Unset = UNSET
        if not isinstance(self.response_format, Unset):
            response_format = self.response_format.to_dict()

        chat_template_kwargs: dict[str, Any] | Unset = UNSET
        if not isinstance(self.chat_template_kwargs, Unset):
            chat_template_kwargs = self.chat_template_kwargs.to_dict()

        user = self.user

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "model": model,
                "messages": messages,
            }
        )
        if max_completion_tokens is not UNSET:
            field_dict["max_completion_tokens"] = max_completion_tokens
        if max_tokens is not UNSET:
            field_dict["max_tokens"] = max_tokens
        if min_tokens is not UNSET:
            field_dict["min_tokens"] = min_tokens
        if temperature is not UNSET:
            field_dict["temperature"] = temperature
        if top_p is not UNSET:
            field_dict["top_p"] = top_p
        if top_k is not UNSET:
            field_dict["top_k"] = top_k
        if min_p is not UNSET:
            field_dict["min_p"] = min_p
        if seed is not UNSET:
            field_dict["seed"] = seed
        if n is not UNSET:
            field_dict["n"] = n
        if stop is not UNSET:
            field_dict["stop"] = stop
        if stop_token_ids is not UNSET:
            field_dict["stop_token_ids"] = stop_token_ids
        if ignore_eos is not UNSET:
            field_dict["ignore_eos"] = ignore_eos
        if presence_penalty is not UNSET:
            field_dict["presence_penalty"] = presence_penalty
        if frequency_penalty is not UNSET:
            field_dict["frequency_penalty"] = frequency_penalty
        if repetition_penalty is not UNSET:
            field_dict["repetition_penalty"] = repetition_penalty
        if logit_bias is not UNSET:
            field_dict["logit_bias"] = logit_bias
        if logprobs is not UNSET:
            field_dict["logprobs"] = logprobs
        if top_logprobs is not UNSET:
            field_dict["top_logprobs"] = top_logprobs
        if stream is not UNSET:
            field_dict["stream"] = stream
        if stream_options is not UNSET:
            field_dict["stream_options"] = stream_options
        if response_format is not UNSET:
            field_dict["response_format"] = response_format
        if chat_template_kwargs is not UNSET:
            field_dict["chat_template_kwargs"] = chat_template_kwargs
        if user is not UNSET:
            field_dict["user"] = user

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.chat_request_chat_template_kwargs import (
            ChatRequestChatTemplateKwargs,  # noqa: PLC0415
        )
        from ..models.chat_request_logit_bias import ChatRequestLogitBias  # noqa: PLC0415
        from ..models.message import Message  # noqa: PLC0415
        from ..models.response_format import ResponseFormat  # noqa: PLC0415
        from ..models.stream_options import StreamOptions  # noqa: PLC0415

        d = dict(src_dict)
        model = d.pop("model")

        messages = []
        _messages = d.pop("messages")
        for messages_item_data in _messages:
            messages_item = Message.from_dict(messages_item_data)

            messages.append(messages_item)

        max_completion_tokens = d.pop("max_completion_tokens", UNSET)

        max_tokens = d.pop("max_tokens", UNSET)

        min_tokens = d.pop("min_tokens", UNSET)

        temperature = d.pop("temperature", UNSET)

        top_p = d.pop("top_p", UNSET)

        top_k = d.pop("top_k", UNSET)

        min_p = d.pop("min_p", UNSET)

        seed = d.pop("seed", UNSET)

        n = d.pop("n", UNSET)

        def _parse_stop(data: object) -> list[str] | str | Unset:
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                stop_type_1 = cast(list[str], data)

                return stop_type_1
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | str | Unset, data)

        stop = _parse_stop(d.pop("stop", UNSET))

        stop_token_ids = cast(list[int], d.pop("stop_token_ids", UNSET))

        ignore_eos = d.pop("ignore_eos", UNSET)

        presence_penalty = d.pop("presence_penalty", UNSET)

        frequency_penalty = d.pop("frequency_penalty", UNSET)

        repetition_penalty = d.pop("repetition_penalty", UNSET)

        _logit_bias = d.pop("logit_bias", UNSET)
        logit_bias: ChatRequestLogitBias | Unset
        if isinstance(_logit_bias, Unset):
            logit_bias = UNSET
        else:
            logit_bias = ChatRequestLogitBias.from_dict(_logit_bias)

        logprobs = d.pop("logprobs", UNSET)

        top_logprobs = d.pop("top_logprobs", UNSET)

        stream = d.pop("stream", UNSET)

        _stream_options = d.pop("stream_options", UNSET)
        stream_options: StreamOptions | Unset
        if isinstance(_stream_options, Unset):
            stream_options = UNSET
        else:
            stream_options = StreamOptions.from_dict(_stream_options)

        _response_format = d.pop("response_format", UNSET)
        response_format: ResponseFormat | Unset
        if isinstance(_response_format, Unset):
            response_format = UNSET
        else:
            response_format = ResponseFormat.from_dict(_response_format)

        _chat_template_kwargs = d.pop("chat_template_kwargs", UNSET)
        chat_template_kwargs: ChatRequestChatTemplateKwargs | Unset
        if isinstance(_chat_template_kwargs, Unset):
            chat_template_kwargs = UNSET
        else:
            chat_template_kwargs = ChatRequestChatTemplateKwargs.from_dict(_chat_template_kwargs)

        user = d.pop("user", UNSET)

        chat_request = cls(
            model=model,
            messages=messages,
            max_completion_tokens=max_completion_tokens,
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            seed=seed,
            n=n,
            stop=stop,
            stop_token_ids=stop_token_ids,
            ignore_eos=ignore_eos,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            repetition_penalty=repetition_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
            stream=stream,
            stream_options=stream_options,
            response_format=response_format,
            chat_template_kwargs=chat_template_kwargs,
            user=user,
        )

        chat_request.additional_properties = d
        return chat_request

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
