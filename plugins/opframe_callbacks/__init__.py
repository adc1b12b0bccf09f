"""What is done at points of training: stopping early, averaging weights, surviving bad steps, minding the time."""

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


@final
@frozen(kw_only=True)
class Ema(Callback):
    """Keep an exponential moving average of the weights, and evaluate and export that.

    average ← decay · average + (1 − decay) · weights after every step. In the beginning, where there is little to
    average, decay is at most (1 + steps) / (10 + steps). Other state of the network, as batch statistics, is its own.
    """

    name: ClassVar[str] = "ema"
    decay: float = field(
        default=0.999, validator=[ge(0.0), lt(1.0)], metadata={"help": "how much of the average a step leaves"}
    )
    evaluate: bool = field(
        default=True,
        metadata={"help": "evaluate, report and export the average in place of the weights, which training keeps"},
    )

    def build(self) -> object:
        """Make the object that averages."""
        from opframe_callbacks.average import Average

        return Average(self.decay, self.evaluate)


@final
@frozen(kw_only=True)
class Rescue(Callback):
    """Leave out steps whose loss or gradient is not finite or far too large, and go back where that does not help.

    A step is left out, so that it changes no weight, where the loss or the norm of the gradient is not finite or
    `factor` times above its running median; `left_out.jsonl` in the run folder says what was in its batch. After
    `patience` such steps in a row, training goes back to the latest checkpoint, and on with the data in another order,
    at most `rollbacks` times; then the run ends. All processes decide alike, by the mean loss and the whole gradient.
    """

    name: ClassVar[str] = "rescue"
    factor: float = field(
        default=10.0, validator=[gt(1.0), lt(float("inf"))], metadata={"help": "times the median that is too much"}
    )
    window: int = field(
        default=100, validator=ge(10), metadata={"help": "steps of the running median, which is used from the tenth on"}
    )
    patience: int = field(
        default=3, validator=gt(0), metadata={"help": "steps in a row that are left out before training goes back"}
    )
    rollbacks: int = field(default=2, validator=ge(0), metadata={"help": "how often it may go back in one run"})

    def build(self) -> object:
        """Make the object that judges steps."""
        from opframe_callbacks.rescue import Judge

        return Judge(self.factor, self.window, self.patience, self.rollbacks)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [EarlyStopping, WallClock, Ema, Rescue]
