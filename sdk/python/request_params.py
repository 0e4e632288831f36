"""Prints the module `requests`: request_params.py openapi.json

What `Client.chat` and `Client.completion` take, as TypedDicts, so that type checkers know fields that are given by
name and messages that are plain dicts.
"""

import json
import sys
import textwrap

ROOTS = ("ChatRequest", "CompletionRequest")
# Set by the method that is called.
NOT_GIVEN = "stream"
SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
HEAD = '''"""What requests are made of, as plain dicts. Written by sdk/generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing_extensions import Required

    from . import models
'''


def name_of(schema):
    return schema["$ref"].rsplit("/", 1)[-1]


def reference_of(schema):
    return next((part for part in [schema, *schema.get("allOf", [])] if "$ref" in part), None)


def type_of(schema, schemas):
    """The Python type of a value of `schema`."""
    if reference := reference_of(schema):
        name = name_of(reference)
        if "enum" in schemas[name]:
            return f"Literal[{', '.join(map(json.dumps, schemas[name]['enum']))}]"
        return f"{name}Param | models.{name}"
    if "anyOf" in schema:
        return " | ".join(type_of(variant, schemas) for variant in schema["anyOf"])
    if schema.get("type") == "array":
        return f"Sequence[{type_of(schema['items'], schemas)}]"
    if schema.get("type") == "object":
        return f"Mapping[str, {type_of(schema['additionalProperties'], schemas)}]"
    return SIMPLE.get(schema.get("type"), "Any")


def objects_below(name, schemas, found):
    """`name` and every object that it refers to, each after those that it needs."""
    if name in found or "enum" in schemas[name]:
        return
    for text in json.dumps(schemas[name]).split("#/components/schemas/")[1:]:
        objects_below(text.split('"')[0], schemas, found)
    found.append(name)


def lines_of(name, schemas):
    schema = schemas[name]
    yield f"class {name}Param(TypedDict, total=False):"
    yield f'    """{schema["description"]}"""'
    yield ""
    for field, property in schema["properties"].items():
        if name in ROOTS and field == NOT_GIVEN:
            continue
        for line in textwrap.wrap(property["description"], 106):
            yield f"    # {line}"
        required = field in schema.get("required", [])
        type = type_of(property, schemas)
        if required:
            type = f"Required[{type}]"
        elif property.get("nullable") or name in ROOTS:
            type = f"{type} | None"
        yield f"    {field}: {type}"


def main():
    with open(sys.argv[1], encoding="utf-8") as document:
        schemas = json.load(document)["components"]["schemas"]
    names = []
    for root in ROOTS:
        objects_below(root, schemas, names)
    print(HEAD)
    print("\n\n\n".join("\n".join(lines_of(name, schemas)) for name in names))


main()
