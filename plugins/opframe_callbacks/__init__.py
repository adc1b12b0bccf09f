"""What is done at points of training: stopping early, and ending before the time is over."""

from __future__ import annotations

from typing import ClassVar, final

from attrs import field, frozen
from attrs.validators import ge, gt, lt

from opframe_registry import Callback, Component, hookimpl, is_duration, seconds


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


@final
@frozen(kw_only=True)
class WallClock(Callback):
    """End before the time that a job may take is over, saved, to be resumed.

    What has taken longest between two steps so far (an evaluation, a checkpoint) is still to fit into the limit. The
    run ends as after SIGTERM, with exit code 143, so that a script can start it again with --resume. The time counts
    from the start of the process that trains: leave some of the job's for what comes before, and for saving.
    """

    name: ClassVar[str] = "wall_clock"
    limit: str = field(validator=is_duration, metadata={"help": "how long the run may take: 11h50m, 90m, 2d"})

    def build(self) -> object:
        """Make the object that looks at the clock."""
        from opframe_callbacks.clock import Clock

        return Clock(self.limit, seconds(self.limit))


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [EarlyStopping, WallClock]
