"""Where a run's numbers go: JSON lines, TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from attrs import field, frozen
from attrs.validators import min_len

from opframe_registry import Component, Location, Logger, RunInfo, RunLogger, hookimpl


@final
@frozen(kw_only=True)
class JsonLines(Logger):
    """A line of JSON for every record, in `metrics.jsonl`. Every run has it.

    A line has `step`, `kind` (train, evaluation or test), `time` in seconds since 1970, and the numbers by name; one
    that is not finite is null.
    """

    name: ClassVar[str] = "json_lines"
    images: ClassVar[bool] = False

    def build(self, run: RunInfo) -> RunLogger:
        """Append to the file. What lies beyond the step from which the run goes on is dropped."""
        from opframe_loggers.json_lines import Lines

        return Lines(run.folder / "metrics.jsonl", run.step)


@final
@frozen(kw_only=True)
class TensorBoard(Logger):
    """TensorBoard events in `events/`, pictures of roll-outs among them."""

    name: ClassVar[str] = "tensorboard"

    def build(self, run: RunInfo) -> RunLogger:
        """Write a file of events. TensorBoard leaves out what earlier ones have beyond the step."""
        from opframe_loggers.events import Events

        return Events(run.folder / "events", run.step)


@final
@frozen(kw_only=True)
class WeightsAndBiases(Logger):
    """Weights & Biases, with pictures of roll-outs; `pip install "opframe[wandb]"`.

    A run that is resumed goes on under its id, which `wandb.json` in the run folder has. What it says for a second
    time, since it was killed after its latest checkpoint, is left out there.
    """

    name: ClassVar[str] = "wandb"
    project: str = field(default="opframe", validator=min_len(1), metadata={"help": "the project that the run is of"})
    entity: str | None = field(default=None, metadata={"help": "a user or team (default: the person's own)"})
    group: str | None = field(default=None, metadata={"help": "the group of runs that the run is of"})
    mode: Literal["online", "offline", "disabled"] | None = field(
        default=None,
        metadata={"help": "offline: kept in the run folder, for `wandb sync` (default: as WANDB_MODE says, or online)"},
    )

    def build(self, run: RunInfo) -> RunLogger:
        """Begin or resume the run. Raises RunError without the package, or where Weights & Biases refuses it."""
        from opframe_loggers.weights_and_biases import begin

        return begin(self, run)


@final
@frozen(kw_only=True)
class MLflow(Logger):
    """MLflow, with pictures of roll-outs; `pip install "opframe[mlflow]"`.

    A run that is resumed goes on under its id, which `mlflow.json` in the run folder has. What it says for a second
    time, since it was killed after its latest checkpoint, is left out there.
    """

    name: ClassVar[str] = "mlflow"
    uri: Location | None = field(
        default=None,
        metadata={"help": "a tracking server, or a folder (default: as MLFLOW_TRACKING_URI or MLflow itself says)"},
    )
    experiment: str = field(
        default="opframe", validator=min_len(1), metadata={"help": "the experiment that the run is of"}
    )

    def build(self, run: RunInfo) -> RunLogger:
        """Begin or resume the run. Raises RunError without the package, or where MLflow refuses it."""
        from opframe_loggers.tracking import begin

        return begin(self, run)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [JsonLines, TensorBoard, WeightsAndBiases, MLflow]
