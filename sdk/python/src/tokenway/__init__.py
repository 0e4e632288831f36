"""Client of tokenway, whose streams outlive their gateway."""

from .client import AsyncClient, Client
from .errors import APIConnectionError, APIError, TokenwayError
from .generated.models import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CompletionChunk,
    ContentPart,
    ImageUrl,
    Message,
    Model,
    Usage,
)
from .streams import AsyncStream, Stream

__all__ = [
    "APIConnectionError",
    "APIError",
    "AsyncClient",
    "AsyncStream",
    "ChatCompletion",
    "ChatCompletionChunk",
    "Client",
    "Completion",
    "CompletionChunk",
    "ContentPart",
    "ImageUrl",
    "Message",
    "Model",
    "Stream",
    "TokenwayError",
    "Usage",
]
