"""Building what evaluates a run: its metrics, and the baselines beside the model."""

from __future__ import annotations

import attrs
import torch

from opframe.config import building
from opframe.config.building import CheckedMetric
from opframe.config.settings import Experiment
from opframe.evaluation.measuring import measured
from opframe.evaluation.protocol import Evaluator
from opframe.mixture.source import Source, evaluation_mask
from opframe.processes import Processes
from opframe.run.assembly import Sources
from opframe_registry import Backbone, Catalog, ConfigError, Fields, PluginError


def make_evaluator(experiment: Experiment, sources: Sources, catalog: Catalog, processes: Processes) -> Evaluator:
    """The evaluator of the test split of every dataset.

    Raises ConfigError or PluginError for metrics and baselines that cannot be used.
    """
    metrics = tuple(building.build_metric(metric, sources.fields) for metric in experiment.metrics)
    for source in (*sources.test, *sources.zero_shot):
        _try(metrics, source, sources.fields)
    return Evaluator(
        sources=sources.test,
        zero_shot=sources.zero_shot,
        fields=sources.fields,
        processes=processes,
        batch_size=experiment.evaluation.batch_size,
        bfloat16=experiment.trainer.precision == "bfloat16",
        metrics=metrics,
        baselines={name: _baseline(name, catalog, sources.fields) for name in experiment.evaluation.baselines},
    )


def _try(metrics: tuple[CheckedMetric, ...], source: Source, fields: Fields) -> None:
    """Measure one frame of zeros against ones, so that what is wrong shows before training and not after it."""
    mask = evaluation_mask(source.metadata, source.seen(fields))[None, None]
    measured(metrics, torch.zeros_like(mask), torch.ones_like(mask), mask, source.metadata)


def _baseline(name: str, catalog: Catalog, fields: Fields) -> Backbone:
    """An installed backbone without weights, as it is by default. Raises ConfigError or PluginError."""
    try:
        class_ = catalog.get(Backbone, name)  # type: ignore[type-abstract]
    except PluginError as error:
        raise ConfigError(f"evaluation.baselines: {error}") from None
    required = [key.alias for key in attrs.fields(class_) if key.default is attrs.NOTHING]
    if required:
        raise ConfigError(f"evaluation.baselines: '{name}' cannot be used, as it has no default for '{required[0]}'")
    with building.blamed(class_, "the making of its defaults"):
        component = class_()
    try:
        network = building.build_shapes(component, fields)
    except ConfigError as error:
        raise ConfigError(f"evaluation.baselines: '{name}' cannot be used ({error})") from error
    if next(network.parameters(), None) is not None:
        raise ConfigError(
            f"evaluation.baselines: '{name}' has weights, which nothing would train; expected backbones without, such "
            "as 'persistence' and 'linear'"
        )
    return component
