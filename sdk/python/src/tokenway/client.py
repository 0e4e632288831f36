"""The clients."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx

from .bodies import body_of
from .errors import APIConnectionError, APIError
from .generated.models import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    Completion,
    CompletionChunk,
    CompletionRequest,
    Model,
    ModelList,
)
from .streams import SILENCE_SECONDS, AsyncStream, Reading, Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .generated.requests import ChatRequestParam, CompletionRequestParam

T = TypeVar("T")

CONNECT_SECONDS = 5.0
# Longer than any gateway lets a request wait.
ANSWER_SECONDS = 600.0

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MODELS = "/v1/models"


class _Requests:
    """The requests that both clients send."""

    def __init__(
        self,
        http: httpx.Client | httpx.AsyncClient,
        base_url: str,
        api_key: str | None,
        timeout: float,
    ):
        self._http = http
        self._base = base_url.rstrip("/").removesuffix("/v1")
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._timeout = timeout

    def models(self) -> httpx.Request:
        return self._request("GET", MODELS, self._timeout)

    def chat(self, fields: ChatRequestParam, stream: bool) -> httpx.Request:
        return self._request("POST", CHAT, self._timeout, json=body_of(ChatRequest, fields, stream))

    def completion(self, fields: CompletionRequestParam, stream: bool) -> httpx.Request:
        return self._request("POST", COMPLETIONS, self._timeout, json=body_of(CompletionRequest, fields, stream))

    def rest(self, id: str, last_event_id: int) -> httpx.Request:
        path = f"/v1/streams/{quote(id, safe='')}"
        return self._request("GET", path, SILENCE_SECONDS, headers={"last-event-id": str(last_event_id)})

    def reading(self, first: httpx.Request, parse: Callable[[dict[str, Any]], T]) -> Reading[T]:
        return Reading(first, self.rest, parse)

    def reading_on(self, id: str, last_event_id: int) -> Reading[ChatCompletionChunk | CompletionChunk]:
        return Reading(self.rest(id, last_event_id), self.rest, _chunk, id, last_event_id)

    def _request(self, method: str, path: str, seconds: float, **more: Any) -> httpx.Request:
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        request = self._http.build_request(method, self._base + path, timeout=timeout, **more)
        request.headers.update(self._headers)
        return request


def _chunk(event: dict[str, Any]) -> ChatCompletionChunk | CompletionChunk:
    if event["object"] == "chat.completion.chunk":
        return ChatCompletionChunk.from_dict(event)
    return CompletionChunk.from_dict(event)


def _parsed(response: httpx.Response, parse: Callable[[dict[str, Any]], T]) -> T:
    if response.is_error:
        raise APIError.of(response)
    return parse(response.json())


class Client:
    """A client of the gateway at `base_url`, with or without `/v1` at its end.

    `timeout`: seconds that an answer may take to begin; a stream may then be silent for a minute. `http_client` is used
    instead of one of its own, and left open. Raises APIError and APIConnectionError; nothing is sent twice.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: float = ANSWER_SECONDS,
        http_client: httpx.Client | None = None,
    ):
        self._http = http_client or httpx.Client()
        self._owns_http = http_client is None
        self._requests = _Requests(self._http, base_url, api_key, timeout)

    def chat(self, **request: Unpack[ChatRequestParam]) -> ChatCompletion:
        """Answers a conversation."""
        return self._send(self._requests.chat(request, stream=False), ChatCompletion.from_dict)

    def chat_stream(self, **request: Unpack[ChatRequestParam]) -> Stream[ChatCompletionChunk]:
        """Answers a conversation, piece by piece."""
        first = self._requests.chat(request, stream=True)
        return Stream(self._http, self._requests.reading(first, ChatCompletionChunk.from_dict))

    def completion(self, **request: Unpack[CompletionRequestParam]) -> Completion:
        """Continues prompts."""
        return self._send(self._requests.completion(request, stream=False), Completion.from_dict)

    def completion_stream(self, **request: Unpack[CompletionRequestParam]) -> Stream[CompletionChunk]:
        """Continues prompts, piece by piece."""
        first = self._requests.completion(request, stream=True)
        return Stream(self._http, self._requests.reading(first, CompletionChunk.from_dict))

    def read_stream(self, id: str, last_event_id: int = 0) -> Stream[ChatCompletionChunk | CompletionChunk]:
        """What follows a chunk of a stream that was begun elsewhere with the same key, in the last 15 minutes."""
        return Stream(self._http, self._requests.reading_on(id, last_event_id))

    def models(self) -> list[Model]:
        """The models that can be asked."""
        return self._send(self._requests.models(), ModelList.from_dict).data

    def close(self) -> None:
        """Closes all connections."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: httpx.Request, parse: Callable[[dict[str, Any]], T]) -> T:
        try:
            response = self._http.send(request)
        except httpx.RequestError as error:
            raise APIConnectionError(str(error) or type(error).__name__) from error
        return _parsed(response, parse)


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited; streams are read with `async for`."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: float = ANSWER_SECONDS,
        http_client: httpx.AsyncClient | None = None,
    ):
        self._http = http_client or httpx.AsyncClient()
        self._owns_http = http_client is None
        self._requests = _Requests(self._http, base_url, api_key, timeout)

    async def chat(self, **request: Unpack[ChatRequestParam]) -> ChatCompletion:
        """Answers a conversation."""
        return await self._send(self._requests.chat(request, stream=False), ChatCompletion.from_dict)

    def chat_stream(self, **request: Unpack[ChatRequestParam]) -> AsyncStream[ChatCompletionChunk]:
        """Answers a conversation, piece by piece."""
        first = self._requests.chat(request, stream=True)
        return AsyncStream(self._http, self._requests.reading(first, ChatCompletionChunk.from_dict))

    async def completion(self, **request: Unpack[CompletionRequestParam]) -> Completion:
        """Continues prompts."""
        return await self._send(self._requests.completion(request, stream=False), Completion.from_dict)

    def completion_stream(self, **request: Unpack[CompletionRequestParam]) -> AsyncStream[CompletionChunk]:
        """Continues prompts, piece by piece."""
        first = self._requests.completion(request, stream=True)
        return AsyncStream(self._http, self._requests.reading(first, CompletionChunk.from_dict))

    def read_stream(self, id: str, last_event_id: int = 0) -> AsyncStream[ChatCompletionChunk | CompletionChunk]:
        """What follows a chunk of a stream that was begun elsewhere with the same key, in the last 15 minutes."""
        return AsyncStream(self._http, self._requests.reading_on(id, last_event_id))

    async def models(self) -> list[Model]:
        """The models that can be asked."""
        return (await self._send(self._requests.models(), ModelList.from_dict)).data

    async def close(self) -> None:
        """Closes all connections."""
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, request: httpx.Request, parse: Callable[[dict[str, Any]], T]) -> T:
        try:
            response = await self._http.send(request)
        except httpx.RequestError as error:
            raise APIConnectionError(str(error) or type(error).__name__) from error
        return _parsed(response, parse)
