"""Requests as JSON, checked against the generated types before they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from .generated.models import ChatRequest, CompletionRequest


def body_of(
    request: type[ChatRequest] | type[CompletionRequest], fields: Mapping[str, Any], stream: bool
) -> dict[str, Any]:
    """`fields` as JSON; those that are None stand for absent ones.

    Raises a TypeError when `request` has no such field, at any depth, or lacks one.
    """
    if "stream" in fields:
        raise TypeError("`stream` is not a field: the methods that end in `_stream` stream")
    body = {name: _plain(value) for name, value in fields.items() if value is not None}
    try:
        parsed = request.from_dict(body)
    except KeyError as missing:
        raise TypeError(f"{request.__name__} lacks `{missing.args[0]}`") from None
    except (AttributeError, TypeError, ValueError) as wrong:
        raise TypeError(f"not a {request.__name__}: {wrong}") from wrong
    _check_names(parsed)
    return {**body, "stream": True} if stream else body


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _check_names(parsed: Any) -> None:
    if isinstance(parsed, list):
        for item in parsed:
            _check_names(item)
    if not attrs.has(type(parsed)):
        return
    names = [field.name for field in attrs.fields(type(parsed)) if field.name != "additional_properties"]
    # A type without names of its own is a map, which takes any.
    if names and parsed.additional_properties:
        raise TypeError(f"{type(parsed).__name__} has no field `{next(iter(parsed.additional_properties))}`")
    for name in names:
        _check_names(getattr(parsed, name))
