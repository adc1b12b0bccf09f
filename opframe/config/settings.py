"""What an experiment consists of. These classes are the schema of the TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
from attrs import Attribute, field, frozen
from attrs.validators import deep_iterable, ge, gt, lt, min_len, optional

from opframe.config.parallel import Parallel
from opframe_registry import (
    Backbone,
    Callback,
    Component,
    Dataset,
    Location,
    Logger,
    Metric,
    Normalizer,
    Objective,
    Optimizer,
    Sampler,
    Schedule,
    is_duration,
    seconds,
)
from opframe_registry.identity import locations

Resize = Literal["bilinear", "fourier", "average", "crop", "native"]
"""How frames of another grid come to that of the model; with `native` they do not."""


@frozen(kw_only=True)
class Run:
    """Where the run is kept, and its seed."""

    folder: Location = field(default=Location("runs/default"), metadata={"help": "the run folder"})
    copy: Location | None = field(
        default=None,
        metadata={
            "help": "a folder or URL, such as s3://bucket/run, to which checkpoints are copied, and from which an "
            "empty run folder goes on with --resume"
        },
    )
    seed: int = field(
        default=0, validator=[ge(0), lt(2**63)], metadata={"help": "seed of weights, data order and noise"}
    )


@frozen(kw_only=True)
class Data:
    """How trajectories become batches."""

    cache: Location = field(default=Location("data"), metadata={"help": "folder for prepared data"})
    grid: tuple[int, ...] = field(
        validator=[min_len(1), deep_iterable(gt(0))],
        metadata={"help": "grid that the network is made for, and that every dataset is resized to"},
    )
    resize: Resize = field(
        default="bilinear",
        metadata={
            "help": "how: bilinear (as published), fourier (periodic data), average (of a whole number of points), "
            "crop (the central part), native (not at all: every batch has one grid)"
        },
    )
    history: int = field(default=10, validator=gt(0), metadata={"help": "frames a model sees (T_in)"})
    horizon: int = field(
        default=1, validator=gt(0), metadata={"help": "frames a model predicts in one call (T_bundle)"}
    )
    channels: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "channel slots of the network (default: as many as the widest dataset has)"},
    )
    batch_size: int = field(
        default=16, validator=gt(0), metadata={"help": "samples of one optimizer step, over all processes"}
    )
    workers: int = field(default=0, validator=ge(0), metadata={"help": "loader threads for each training process"})
    patience: str = field(
        default="10m",
        validator=is_duration,
        metadata={"help": "how long a server that is away is waited for, before the run is saved and ends: 10m, 2h"},
    )
    validation: float = field(
        default=0.0,
        validator=ge(0.0),
        metadata={
            "help": "training trajectories of each dataset held out for validation, a number or, below 1, a share; "
            "not of data that come with a validation split"
        },
    )

    @validation.validator
    def _whole_or_share(self, attribute: Attribute[float], value: float) -> None:
        if value >= 1 and not float(value).is_integer():
            raise ValueError(f"validation = {value}: expected a whole number of trajectories, or a share below 1")


@frozen(kw_only=True)
class Init:
    """Which trained weights to begin with."""

    from_: Location = field(metadata={"help": "a weights folder, its URL, or a run folder"})
    components: tuple[str, ...] | Literal["all"] = field(
        default="all",
        metadata={"help": "the backbone's parts to take, the others begin fresh; `opframe show` lists them"},
    )
    normalization: Literal["changed"] | None = field(
        default=None,
        metadata={
            "help": "changed: train although the data are normalised otherwise than those of the weights (default: "
            "that is an error)"
        },
    )


@frozen(kw_only=True)
class Group:
    """Parameters that are trained in another way than the rest. The first group that matches one has it."""

    match: tuple[str, ...] = field(
        validator=min_len(1), metadata={"help": "the backbone's parts, or patterns of parameter names"}
    )
    learning_rate: float | None = field(
        default=None, validator=optional(gt(0.0)), metadata={"help": "peak learning rate (default: the optimizer's)"}
    )
    frozen: bool = field(
        default=False, metadata={"help": "leave as they are; modules that are frozen whole stay in evaluation mode"}
    )

    def __attrs_post_init__(self) -> None:
        if self.frozen and self.learning_rate is not None:
            raise ValueError("frozen parameters have no learning_rate; remove one of the two keys")


@frozen(kw_only=True)
class Trainer:
    """How long to train, how, and how often to look."""

    steps: int = field(validator=gt(0), metadata={"help": "optimizer steps"})
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: cuda where there is one"})
    precision: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "bfloat16: autocast, weights stay float32"}
    )
    compile: bool = field(default=False, metadata={"help": "compile the training step with torch.compile"})
    accumulate: int = field(
        default=1, validator=gt(0), metadata={"help": "parts a batch is computed in, to save memory"}
    )
    clip: float = field(
        default=1e4,
        validator=gt(0.0),
        metadata={"help": "largest gradient norm (inf: any); larger gradients are scaled down"},
    )
    log_every: int = field(default=10, validator=gt(0), metadata={"help": "steps between the numbers that loggers get"})
    evaluate_every: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "steps between evaluations by validation trajectories (default: none)"},
    )
    checkpoint_every: int = field(default=500, validator=gt(0), metadata={"help": "steps between checkpoints"})
    keep: int = field(
        default=2,
        validator=gt(0),
        metadata={"help": "newest checkpoints kept, besides that of the least validation error"},
    )
    keep_every: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "checkpoints at multiples of so many steps are kept for good (default: none)"},
    )
    save: Literal["foreground", "background"] = field(
        default="foreground",
        metadata={"help": "background: training goes on while a checkpoint is written, from a copy in main memory"},
    )
    timeout: str = field(
        default="15m",
        validator=is_duration,
        metadata={"help": "how long processes wait for one of them, which is then named and ended: 15m, 90s"},
    )
    wall_clock: str | None = field(
        default=None,
        validator=optional(is_duration),
        metadata={"help": "how long the run may take before it ends, saved: 11h50m (default: as long as it does)"},
    )


@frozen(kw_only=True)
class Evaluation:
    """How held-out trajectories are evaluated."""

    batch_size: int = field(default=8, validator=gt(0), metadata={"help": "trajectories rolled out together"})
    trajectories: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "validation trajectories of each dataset used during training (default: all)"},
    )
    baselines: tuple[str, ...] = field(
        default=("persistence", "linear"),
        metadata={"help": "backbones without weights that the model is measured beside; the verdict is by the first"},
    )
    figures: bool = field(default=True, metadata={"help": "draw roll-outs and error against time at the end"})
    overlap: bool = field(
        default=True,
        metadata={
            "help": "say which test or validation data are trained on; the first frame of every trajectory is read for "
            "it, once"
        },
    )

    @baselines.validator
    def _are_others(self, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
        for name in value:
            if value.count(name) > 1:
                raise ValueError(f"baselines names '{name}' twice")
            if name == "model":
                raise ValueError("baselines names 'model', which is what the trained network is called in reports")


@frozen(kw_only=True)
class File:
    """Where a file or folder of a dataset comes from, for `opframe data fetch`."""

    label: str = field(metadata={"help": "the dataset that it belongs to"})
    path: Location = field(metadata={"help": "where the dataset looks for it"})
    url: str | None = field(default=None, metadata={"help": "direct link to the file (default: there is none)"})
    md5: str | None = field(default=None, metadata={"help": "its md5, where one is published"})
    sha256: str | None = field(default=None, metadata={"help": "its sha256, where one is published"})
    bytes: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "its size (default: the server is asked)"}
    )
    unpack: bool = field(default=False, metadata={"help": "the link is to a zip archive of the folder 'path'"})
    homepage: str = field(default="", metadata={"help": "the page on which its publisher offers it"})
    note: str = field(default="", metadata={"help": "what a person has to do or to know, in a sentence"})

    def __attrs_post_init__(self) -> None:
        if self.url is None and not self.homepage:
            raise ValueError("set 'url', or 'homepage' where there is no direct link")


def check_labels(datasets: Sequence[Dataset]) -> None:
    """Raises ValueError if two datasets have one name."""
    titles = [dataset.title for dataset in datasets]
    for title in titles:
        if titles.count(title) > 1:
            raise ValueError(f"two datasets are called '{title}'; give each its own 'label'")


@frozen(kw_only=True)
class Experiment:
    """One experiment: what to train, on what, how, and where to keep it."""

    title: str = field(default="", metadata={"help": "one line for the report"})
    run: Run = field(factory=Run, metadata={"help": "where the run is kept"})
    data: Data = field(metadata={"help": "how trajectories become batches"})
    datasets: tuple[Dataset, ...] = field(validator=min_len(1), metadata={"help": "what to train and evaluate on"})
    zero_shot: tuple[Dataset, ...] = field(default=(), metadata={"help": "datasets that are only evaluated"})
    files: tuple[File, ...] = field(default=(), metadata={"help": "where the files of the datasets come from"})
    normalizer: Normalizer = field(metadata={"help": "what channels are brought to before the network sees them"})
    backbone: Backbone = field(metadata={"help": "the network"})
    init: Init | None = field(default=None, metadata={"help": "trained weights to begin with (default: fresh ones)"})
    parameters: tuple[Group, ...] = field(default=(), metadata={"help": "parameters that are trained otherwise"})
    objective: Objective = field(metadata={"help": "what training minimises"})
    sampler: Sampler = field(metadata={"help": "how batches are drawn from the datasets"})
    optimizer: Optimizer = field(metadata={"help": "how weights are updated"})
    schedule: Schedule = field(metadata={"help": "the learning rate over training"})
    trainer: Trainer = field(metadata={"help": "how long and how to train"})
    parallel: Parallel = field(factory=Parallel, metadata={"help": "how processes share the network"})
    metrics: tuple[Metric, ...] = field(
        validator=min_len(1), metadata={"help": "what is measured; checkpoints are selected by the first"}
    )
    evaluation: Evaluation = field(factory=Evaluation, metadata={"help": "how to evaluate"})
    loggers: tuple[Logger, ...] = field(
        default=(),
        metadata={"help": "where numbers go, json_lines always among them (default: json_lines and tensorboard)"},
    )
    callbacks: tuple[Callback, ...] = field(default=(), metadata={"help": "what is done at points of training"})

    def __attrs_post_init__(self) -> None:
        patience, timeout = self.data.patience, self.trainer.timeout
        remote = any("://" in url for each in (*self.datasets, *self.zero_shot) for url in locations(each))
        if remote and seconds(timeout) <= seconds(patience):
            raise ValueError(
                f"trainer.timeout = '{timeout}' has to be longer than data.patience = '{patience}', for which one of "
                "several processes may wait for a server"
            )

    @zero_shot.validator
    def _labels_differ(self, attribute: Attribute[tuple[Dataset, ...]], value: tuple[Dataset, ...]) -> None:
        check_labels((*self.datasets, *value))

    @loggers.validator
    def _loggers_differ(self, attribute: Attribute[tuple[Logger, ...]], value: tuple[Logger, ...]) -> None:
        for index, logger in enumerate(value):
            if logger in value[:index]:
                raise ValueError(f"loggers[{index}]: '{logger.name}' is listed twice with the same keys; remove one")

    @callbacks.validator
    def _evaluations(self, attribute: Attribute[tuple[Callback, ...]], value: tuple[Callback, ...]) -> None:
        for index, callback in enumerate(value):
            if callback.needs_evaluation and self.trainer.evaluate_every is None:
                raise ValueError(
                    f"callbacks[{index}]: '{callback.name}' goes by evaluations in training, and there are none; set "
                    "trainer.evaluate_every"
                )


def components_of(experiment: Experiment) -> list[Component]:
    """Every component that an experiment names."""
    values = [getattr(experiment, attribute.name) for attribute in attrs.fields(Experiment)]
    several = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    return [item for item in several if isinstance(item, Component)]
