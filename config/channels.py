"""The channels by which messages leave: file `channels.yaml` of the config folder.

Without the file every channel is the outbox: messages stay here, and nothing leaves by accident.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.yaml_file import read_yaml
from schemas.conditions import problems_of
from schemas.errors import ConfigError, shown

FILE_NAME = "channels.yaml"


class ChannelSettings(BaseModel):
    """How one channel works."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    via: Literal["outbox"] = Field(default="outbox", description="What they leave through. `outbox`: they stay here.")
    rate: float = Field(default=50, gt=0, le=10_000, description="Messages a second, of one process.")
    at_once: int = Field(
        default=8, ge=1, le=1_000,
        description="Messages under way together, of one process. So many can be left unknown by a crash.",
    )  # fmt: skip


class Channels(BaseModel):
    """All of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: ChannelSettings = ChannelSettings()
    sms: ChannelSettings = ChannelSettings()


def read_channels(config: Path) -> Channels:
    """The channels of a config folder.

    Raises:
        ConfigError: with the file, the line, the value and the mend.
    """
    path = config / FILE_NAME
    if not path.exists():
        return Channels()
    file = read_yaml(path)
    try:
        return Channels.model_validate({} if file.values is None else file.values)
    except ValidationError as error:
        problem = problems_of(error)[0]
        name = ".".join(map(str, problem.path))
        got = f"; got {shown(problem.value)}" if name and problem.value is not None else ""
        known = Channels if len(problem.path) < 2 else ChannelSettings
        mend = f"It may hold {', '.join(known.model_fields)}."
        raise ConfigError(file.place(problem.path), f'"{name}": {problem.what}{got}.' if name else f"{problem.what}.",
                          mend) from None  # fmt: skip
