"""What is done at points of training: stopping early, and ending before the time is over."""

from __future__ import annotations

import re
from typing import ClassVar, final

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, lt

from opframe_registry import Callback, Component, hookimpl

_SECONDS = (86400, 3600, 60, 1)
"""Of a day, an hour, a minute and a second."""
_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@final
@frozen(kw_only=True)
class EarlyStopping(Callback):
    """Stop training when evaluations no longer find it better.

    It goes by the error that checkpoints are chosen by, every `trainer.evaluate_every` steps. The run is then evaluated
    and reported as if it had come to its last step, and a run that is resumed does not train on.
    """

    name: ClassVar[str] = "early_stopping"
    needs_evaluation: ClassVar[bool] = True
    patience: int = field(
        default=5, validator=gt(0), metadata={"help": "evaluations that may pass without a better one"}
    )
    min_delta: float = field(
        default=0.0,
        validator=[ge(0.0), lt(float("inf"))],
        metadata={"help": "by how much the error has to be less for it to be better"},
    )

    def build(self) -> object:
        """Make the object that counts evaluations."""
        from opframe_callbacks.stopping import Patience

        return Patience(self.patience, self.min_delta)


def _is_duration(component: object, attribute: Attribute[str], value: str) -> None:
    if not _DURATION.fullmatch(value) or seconds(value) == 0:
        raise ValueError(f"{attribute.name} = '{value}' is no duration; write it as 11h50m, 90m or 2d")


def seconds(duration: str) -> int:
    """A duration as days, hours, minutes and seconds, such as `11h50m`, in seconds."""
    parts = _DURATION.fullmatch(duration)
    counts = parts.groups() if parts else ()
    return sum(int(count or 0) * unit for count, unit in zip(counts, _SECONDS, strict=False))


@final
@frozen(kw_only=True)
class WallClock(Callback):
    """End before the time that a job may take is over, saved, to be resumed.

    What has taken longest between two steps so far (an evaluation, a checkpoint) is still to fit into the limit. The
    run ends as after SIGTERM, with exit code 143, so that a script can start it again with --resume. The time counts
    from the start of the process that trains: leave some of the job's for what comes before, and for saving.
    """

    name: ClassVar[str] = "wall_clock"
    limit: str = field(validator=_is_duration, metadata={"help": "how long the run may take: 11h50m, 90m, 2d"})

    def build(self) -> object:
        """Make the object that looks at the clock."""
        from opframe_callbacks.clock import Clock

        return Clock(self.limit, seconds(self.limit))


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [EarlyStopping, WallClock]
