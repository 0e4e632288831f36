"""Streams of events that are read on, each event once, when their connection or their gateway is lost."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

import httpx

from .errors import APIConnectionError, APIError

T = TypeVar("T")

STREAM_ID = "x-stream-id"
# The gateway writes a comment after 15 seconds without an event.
SILENCE_SECONDS = 60.0
READ_ON_AFTER_SECONDS = 0.25
READ_ON_AFTER_SECONDS_MAX = 2.0
READ_ON_FOR_SECONDS = 60.0
# A part of the server is away, in the gateway's words or in those of a proxy before it.
AWAY = (502, 503, 504)


class Reading(Generic[T]):
    """How far a stream has been read, whichever connection its bytes came from.

    `rest` makes the request for what follows an event of a stream; `parse` reads the JSON of an event.
    """

    def __init__(
        self,
        first: httpx.Request,
        rest: Callable[[str, int], httpx.Request],
        parse: Callable[[dict[str, Any]], T],
        id: str | None = None,
        last_event_id: int = 0,
    ):
        self.id = id
        self.last_event_id = last_event_id
        self.is_done = False
        self._request = first
        self._rest = rest
        self._parse = parse
        self._buffer = b""
        self._pauses: Iterator[float] | None = None

    def request(self) -> httpx.Request:
        """The request for what has not been read."""
        return self._request

    def begin(self, response: httpx.Response) -> None:
        """Begins with a response that is OK."""
        self.id = response.headers.get(STREAM_ID, self.id)
        self._buffer = b""
        # What the request was sent with held until here: an answer may wait for its turn longer than it may be silent.
        response.request.extensions["timeout"]["read"] = SILENCE_SECONDS

    def take(self, data: bytes) -> Iterator[T]:
        """The events that `data` completes; an APIError for one that says that the stream failed."""
        *events, self._buffer = (self._buffer + data).split(b"\n\n")
        for event in events:
            fields = dict(line.split(": ", 1) for line in event.decode().split("\n") if ": " in line)
            if "data" not in fields:
                continue
            # The end has an event id, too; without it, what is asked for after the last chunk is the end.
            self.is_done = fields["data"] == "[DONE]"
            if self.is_done:
                return
            chunk = json.loads(fields["data"])
            if "error" in chunk:
                raise APIError(chunk["error"])
            self.last_event_id = int(fields.get("id", self.last_event_id))
            self._pauses = None
            yield self._parse(chunk)

    def refused(self, refusal: APIError) -> APIError:
        """Returns a refusal after which the stream may be asked for again, raises any other."""
        if self.id is None or refusal.status not in AWAY:
            raise refusal
        return refusal

    def pause(self, failure: Exception) -> float:
        """Seconds until the rest is to be asked for; raises `failure` when there is no way to it."""
        if self._pauses is None:
            self._pauses = _pauses()
        pause = None if self.id is None else next(self._pauses, None)
        if self.id is None or pause is None:
            raise APIConnectionError(str(failure) or type(failure).__name__, self.id, self.last_event_id) from failure
        self._request = self._rest(self.id, self.last_event_id)
        return pause


def _pauses() -> Iterator[float]:
    until = time.monotonic() + READ_ON_FOR_SECONDS
    pause = READ_ON_AFTER_SECONDS
    while time.monotonic() < until:
        yield pause * random.uniform(0.5, 1.5)
        pause = min(2 * pause, READ_ON_AFTER_SECONDS_MAX)


ENDED_EARLY = "the connection was closed before the end of the stream"


def _read(http: httpx.Client, reading: Reading[T]) -> Iterator[T]:
    while True:
        try:
            response = http.send(reading.request(), stream=True)
            try:
                if response.is_error:
                    response.read()
                    raise APIError.of(response)
                reading.begin(response)
                for data in response.iter_bytes():
                    yield from reading.take(data)
                    if reading.is_done:
                        return
            finally:
                response.close()
            failure: Exception = httpx.RemoteProtocolError(ENDED_EARLY)
        except httpx.RequestError as error:
            failure = error
        except APIError as error:
            failure = reading.refused(error)
        time.sleep(reading.pause(failure))


async def _read_async(http: httpx.AsyncClient, reading: Reading[T]) -> AsyncIterator[T]:
    while True:
        try:
            response = await http.send(reading.request(), stream=True)
            try:
                if response.is_error:
                    await response.aread()
                    raise APIError.of(response)
                reading.begin(response)
                async for data in response.aiter_bytes():
                    for chunk in reading.take(data):
                        yield chunk
                    if reading.is_done:
                        return
            finally:
                await response.aclose()
            failure: Exception = httpx.RemoteProtocolError(ENDED_EARLY)
        except httpx.RequestError as error:
            failure = error
        except APIError as error:
            failure = reading.refused(error)
        await asyncio.sleep(reading.pause(failure))


class _Place(Generic[T]):
    _reading: Reading[T]

    @property
    def id(self) -> str | None:
        """The stream's name at every gateway; None before the first chunk, and where the gateway keeps no journal."""
        return self._reading.id

    @property
    def last_event_id(self) -> int:
        """The number of the last chunk that was given out; 0 before the first."""
        return self._reading.last_event_id


class Stream(_Place[T], Iterator[T]):
    """The chunks of an answer; asked for when the first is read. Closed at its end, by `close` and by `with`."""

    def __init__(self, http: httpx.Client, reading: Reading[T]):
        self._reading = reading
        self._chunks = _read(http, reading)

    def __next__(self) -> T:
        return next(self._chunks)

    def close(self) -> None:
        """Closes the connection: the answer pauses, and `read_stream` goes on with it."""
        self._chunks.close()  # type: ignore[attr-defined]  # a generator

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(_Place[T], AsyncIterator[T]):
    """The chunks of an answer; asked for when the first is read. Closed at its end, by `close` and by `async with`."""

    def __init__(self, http: httpx.AsyncClient, reading: Reading[T]):
        self._reading = reading
        self._chunks = _read_async(http, reading)

    async def __anext__(self) -> T:
        return await anext(self._chunks)

    async def close(self) -> None:
        """Closes the connection: the answer pauses, and `read_stream` goes on with it."""
        await self._chunks.aclose()  # type: ignore[attr-defined]  # a generator

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
