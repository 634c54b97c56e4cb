"""What values are made of: names, quantities and objects of Kubernetes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Object = dict[str, Any]
"""An object of Kubernetes' own, handed on as it is."""
Texts = dict[str, str]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]
Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
Count = Annotated[int, Field(ge=0)]


class Value(BaseModel):
    model_config = ConfigDict(extra="forbid")
