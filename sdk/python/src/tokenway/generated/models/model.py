from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="Model")


@_attrs_define
class Model:
    """One model."""

    id: str
    """ Goes into the `model` field of requests. """
    object_: str
    """ Always `model`. """
    created: int
    """ Seconds since the Unix epoch when its pipeline was first started. """
    owned_by: str
    """ Always `tokenway`. """
    context_length: int
    """ Longest prompt and answer together, in tokens. """
    fingerprint: str
    """ Fingerprint of weights, tokenizer, template and layer plan. """
    ready: bool
    """ Whether every stage that text needs runs. """
    vision: bool
    """ Whether it takes images. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        id = self.id

        object_ = self.object_

        created = self.created

        owned_by = self.owned_by

        context_length = self.context_length

        fingerprint = self.fingerprint

        ready = self.ready

        vision = self.vision

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "object": object_,
                "created": created,
                "owned_by": owned_by,
                "context_length": context_length,
                "fingerprint": fingerprint,
                "ready": ready,
                "vision": vision,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        id = d.pop("id")

        object_ = d.pop("object")

        created = d.pop("created")

        owned_by = d.pop("owned_by")

        context_length = d.pop("context_length")

        fingerprint = d.pop("fingerprint")

        ready = d.pop("ready")

        vision = d.pop("vision")

        model = cls(
            id=id,
            object_=object_,
            created=created,
            owned_by=owned_by,
            context_length=context_length,
            fingerprint=fingerprint,
            ready=ready,
            vision=vision,
        )

        model.additional_properties = d
        return model

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
