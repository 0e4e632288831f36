from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.pipeline_readiness import PipelineReadiness


T = TypeVar("T", bound="Readiness")


@_attrs_define
class Readiness:
    """What this gateway can serve."""

    ready: bool
    """ Whether the bus is connected, nothing is shutting down, and a pipeline (or the one asked for) can serve. """
    bus: bool
    """ Whether the bus is connected. """
    draining: bool
    """ Whether this gateway is shutting down. """
    pipelines: list[PipelineReadiness]
    """ The pipelines, or the one asked for. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        ready = self.ready

        bus = self.bus

        draining = self.draining

        pipelines = []
        for pipelines_item_data in self.pipelines:
            pipelines_item = pipelines_item_data.to_dict()
            pipelines.append(pipelines_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "ready": ready,
                "bus": bus,
                "draining": draining,
                "pipelines": pipelines,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.pipeline_readiness import PipelineReadiness  # noqa: PLC0415

        d = dict(src_dict)
        ready = d.pop("ready")

        bus = d.pop("bus")

        draining = d.pop("draining")

        pipelines = []
        _pipelines = d.pop("pipelines")
        for pipelines_item_data in _pipelines:
            pipelines_item = PipelineReadiness.from_dict(pipelines_item_data)

            pipelines.append(pipelines_item)

        readiness = cls(
            ready=ready,
            bus=bus,
            draining=draining,
            pipelines=pipelines,
        )

        readiness.additional_properties = d
        return readiness

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
