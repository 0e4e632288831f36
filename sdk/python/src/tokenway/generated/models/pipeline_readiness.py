from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="PipelineReadiness")


@_attrs_define
class PipelineReadiness:
    """What one pipeline lacks."""

    model: str
    """ The model that it serves. """
    fingerprint: str
    """ Its fingerprint. """
    ready: bool
    """ Whether every stage runs. """
    missing: list[str]
    """ Stages without a running instance, such as `tokenize` or `shard-forward.1`. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        model = self.model

        fingerprint = self.fingerprint

        ready = self.ready

        missing = self.missing

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "model": model,
                "fingerprint": fingerprint,
                "ready": ready,
                "missing": missing,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        model = d.pop("model")

        fingerprint = d.pop("fingerprint")

        ready = d.pop("ready")

        missing = cast(list[str], d.pop("missing"))

        pipeline_readiness = cls(
            model=model,
            fingerprint=fingerprint,
            ready=ready,
            missing=missing,
        )

        pipeline_readiness.additional_properties = d
        return pipeline_readiness

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
