from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.completion_request_logit_bias import CompletionRequestLogitBias
    from ..models.stream_options import StreamOptions


T = TypeVar("T", bound="CompletionRequest")


@_attrs_define
class CompletionRequest:
    """Prompts to go on with. Every field but `model` and `prompt` may be absent or null."""

    model: str
    """ Id of the model, as `GET /v1/models` lists it. """
    prompt: list[int] | list[list[int]] | list[str] | str
    """ Text or token ids, one prompt or several; at most 64 answers in all. """
    max_tokens: int | Unset = UNSET
    """ Longest answer in tokens. Default 16. """
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
    """ How many answers to give to each prompt. Default 1. """
    best_of: int | Unset = UNSET
    """ Must equal `n`: the gateway does not rank answers. """
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
    logit_bias: CompletionRequestLogitBias | Unset = UNSET
    """ Added to the logits of token ids: values from -100 to 100, at most 1024 entries. """
    logprobs: int | Unset = UNSET
    """ Gives the log probability of every token and of as many alternatives. """
    echo: bool | Unset = UNSET
    """ Puts the prompt before each answer; for prompts given as text, and without `logprobs`. Default false. """
    stream: bool | Unset = UNSET
    """ Sends the answers as server-sent events while they are made. Default false. """
    stream_options: StreamOptions | Unset = UNSET
    """ What a stream carries beside the answer. """
    user: str | Unset = UNSET
    """ The caller's own name for the person. Not used. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        model = self.model

        prompt: list[int] | list[list[int]] | list[str] | str
        if isinstance(self.prompt, list):
            prompt = self.prompt

        elif isinstance(self.prompt, list):
            prompt = self.prompt

        elif isinstance(self.prompt, list):
            prompt = []
            for prompt_type_3_item_data in self.prompt:
                prompt_type_3_item = prompt_type_3_item_data

                prompt.append(prompt_type_3_item)

        else:
            prompt = self.prompt

        max_tokens = self.max_tokens

        min_tokens = self.min_tokens

        temperature = self.temperature

        top_p = self.top_p

        top_k = self.top_k

        min_p = self.min_p

        seed = self.seed

        n = self.n

        best_of = self.best_of

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

        echo = self.echo

        stream = self.stream

        stream_options: dict[str, Any] | Unset = UNSET
        if not isinstance(self.stream_options, Unset):
            stream_options = self.stream_options.to_dict()

        user = self.user

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "model": model,
                "prompt": prompt,
            }
        )
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
        if best_of is not UNSET:
            field_dict["best_of"] = best_of
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
        if echo is not UNSET:
            field_dict["echo"] = echo
        if stream is not UNSET:
            field_dict["stream"] = stream
        if stream_options is not UNSET:
            field_dict["stream_options"] = stream_options
        if user is not UNSET:
            field_dict["user"] = user

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.completion_request_logit_bias import CompletionRequestLogitBias  # noqa: PLC0415
        from ..models.stream_options import StreamOptions  # noqa: PLC0415

        d = dict(src_dict)
        model = d.pop("model")

        def _parse_prompt(data: object) -> list[int] | list[list[int]] | list[str] | str:
            try:
                if not isinstance(data, list):
                    raise TypeError()
                prompt_type_1 = cast(list[str], data)

                return prompt_type_1
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            try:
                if not isinstance(data, list):
                    raise TypeError()
                prompt_type_2 = cast(list[int], data)

                return prompt_type_2
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            try:
                if not isinstance(data, list):
                    raise TypeError()
                prompt_type_3 = []
                _prompt_type_3 = data
                for prompt_type_3_item_data in _prompt_type_3:
                    prompt_type_3_item = cast(list[int], prompt_type_3_item_data)

                    prompt_type_3.append(prompt_type_3_item)

                return prompt_type_3
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[int] | list[list[int]] | list[str] | str, data)

        prompt = _parse_prompt(d.pop("prompt"))

        max_tokens = d.pop("max_tokens", UNSET)

        min_tokens = d.pop("min_tokens", UNSET)

        temperature = d.pop("temperature", UNSET)

        top_p = d.pop("top_p", UNSET)

        top_k = d.pop("top_k", UNSET)

        min_p = d.pop("min_p", UNSET)

        seed = d.pop("seed", UNSET)

        n = d.pop("n", UNSET)

        best_of = d.pop("best_of", UNSET)

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
        logit_bias: CompletionRequestLogitBias | Unset
        if isinstance(_logit_bias, Unset):
            logit_bias = UNSET
        else:
            logit_bias = CompletionRequestLogitBias.from_dict(_logit_bias)

        logprobs = d.pop("logprobs", UNSET)

        echo = d.pop("echo", UNSET)

        stream = d.pop("stream", UNSET)

        _stream_options = d.pop("stream_options", UNSET)
        stream_options: StreamOptions | Unset
        if isinstance(_stream_options, Unset):
            stream_options = UNSET
        else:
            stream_options = StreamOptions.from_dict(_stream_options)

        user = d.pop("user", UNSET)

        completion_request = cls(
            model=model,
            prompt=prompt,
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            seed=seed,
            n=n,
            best_of=best_of,
            stop=stop,
            stop_token_ids=stop_token_ids,
            ignore_eos=ignore_eos,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            repetition_penalty=repetition_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            echo=echo,
            stream=stream,
            stream_options=stream_options,
            user=user,
        )

        completion_request.additional_properties = d
        return completion_request

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
