"""What goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx


class TokenwayError(Exception):
    """A request or a stream that failed."""


class APIError(TokenwayError):
    """What the gateway says instead of an answer, or in a stream instead of its rest.

    `status` is the HTTP status, None in a stream. `code` is a word for programs, `type` the family of the error,
    `param` the field at fault. `retry_after`: seconds after which the request may pass.
    """

    def __init__(self, error: Mapping[str, Any], status: int | None = None, retry_after: float | None = None):
        self.message: str = str(error.get("message"))
        self.code: str | None = error.get("code")
        self.type: str | None = error.get("type")
        self.param: str | None = error.get("param")
        self.status = status
        self.retry_after = retry_after
        super().__init__(self.message if status is None else f"{self.message} ({status})")

    @classmethod
    def of(cls, response: httpx.Response) -> APIError:
        """The error in a response that has been read."""
        try:
            error = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = None
        if not isinstance(error, dict):
            # Not the gateway's own words, e.g. a proxy's page.
            error = {"message": f"the server answered {response.status_code} {response.reason_phrase}"}
        return cls(error, response.status_code, _seconds(response.headers.get("retry-after")))


class APIConnectionError(TokenwayError):
    """The gateway was not reached, or the connection to it broke; of a stream, nobody sent the rest.

    With `stream_id` and `last_event_id`, `read_stream` reads the rest later.
    """

    def __init__(self, message: str, stream_id: str | None = None, last_event_id: int = 0):
        self.stream_id = stream_id
        self.last_event_id = last_event_id
        super().__init__(message)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
