"""Prints the OpenAPI document in words that the generators understand: plain_references.py openapi.json

The gateway describes a field of another schema as `allOf` of the reference and of notes; generators take those notes
for a second type. Here they stand beside the reference, which means the same.
"""

import json
import sys

NOTES = {"description", "nullable"}


def plain(node):
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: plain(value) for name, value in node.items()}
    match node.get("allOf"):
        case [{"$ref": _} as reference, dict(notes)] if notes.keys() <= NOTES:
            return {**node, **notes, "allOf": [reference]}
    return node


with open(sys.argv[1], encoding="utf-8") as document:
    json.dump(plain(json.load(document)), sys.stdout, ensure_ascii=False)
