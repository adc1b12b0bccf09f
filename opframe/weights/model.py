"""Trained networks in use: they take and give frames in the units of the data, whatever they were trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self, final

import torch
from attrs import evolve
from torch import Tensor, nn

from opframe.layers.derived import constant_weights
from opframe.mixture.conditions import changed, unknown_conditions
from opframe.mixture.rollout import model_forecast
from opframe.weights.location import NEEDS_HUB, WeightsError
from opframe.weights.pretrained import Header, Weights, build_network, now, write_folder
from opframe.weights.units import Units, units_of, units_of_any
from opframe_registry import Conditions, ConfigError, Prediction, did_you_mean


@final
class Pretrained:
    """A trained network that forecasts in the units of the data.

    `network` is the torch module alone, which sees normalised frames where it was trained on such; `metadata` say what
    it is, what it was trained on and how. `load_pretrained` makes it.
    """

    network: nn.Module
    metadata: Header

    def __init__(self, weights: Weights, dataset: str | None = None, statistics_of: Tensor | None = None) -> None:
        self._location, self.metadata = weights.location, weights.header
        self._chosen = units_of(weights.header, weights.location, dataset, statistics_of)
        self.network = build_network(weights)

    def __call__(self, frames: Tensor, conditions: Conditions | None = None) -> Prediction:
        """Map (B, history, C, *grid) to a Prediction whose field is (B, horizon, C, *grid), both in physical units.

        C is as wide as the network; channels that the data do not have are 1, and stay as they are. Gradients flow, and
        the network's mode is left as it is. Raises ConfigError on another number of channels.
        """
        slots = self.metadata.fields.channels
        if frames.ndim < 3 or frames.shape[2] != len(slots):
            raise ConfigError(
                f"frames have the shape {tuple(frames.shape)}, but expected (B, history, {len(slots)}, *grid); "
                f"the channels are {', '.join(slots)}, and those that the data do not have are 1"
            )
        units = self._units(None)
        prediction: Prediction = self.network(units.seen(frames), self._told(conditions, frames, units))
        return dataclasses.replace(prediction, field=units.physical(prediction.field))

    @torch.no_grad()
    def forecast(
        self,
        frames: Tensor,
        steps: int,
        conditions: Conditions | Mapping[str, float | Tensor] | None = None,
        dataset: str | None = None,
    ) -> Tensor:
        """The next `steps` frames, (T, C, *grid) or (B, T, C, *grid) as they are given, in physical units.

        Of the frames given, the last ones that the network takes are used; C is the number of the dataset's own
        channels, or of all that the network has. NaN stands where a value is missing, and comes back there. Conditions
        may be given by the names of parameters, a number for all trajectories or a tensor (B,) with one for each;
        what is not given is not known. `dataset` is one that was trained on, where `load_pretrained` was not told.
        The result is on the device of the frames. Raises ConfigError for what does not fit, WeightsError where it is
        not known what frames are normalised by.
        """
        units = self._units(dataset)
        given = self._checked(frames, steps, units)
        history = given[:, -self.metadata.fields.history :].to(next(self.network.parameters()))
        padding = history.new_ones(*history.shape[:2], len(self.metadata.fields.channels) - history.shape[2], 1)
        padding = padding.view(*padding.shape[:3], *[1] * (history.ndim - 3)).expand(-1, -1, -1, *history.shape[3:])
        seen = units.seen(torch.cat([history, padding], 2))
        absent = seen.isnan().any(2, keepdim=True).any(1)  # (B, 1, *grid)
        told = self._told(conditions, history, units)
        missing = bool(absent.any())
        told = dataclasses.replace(told, valid=told.valid & ~absent) if missing else told
        predicted = self._rolled_out(seen.nan_to_num(nan=0.0), steps, told, missing)
        result = units.physical(predicted)[:, :, : history.shape[2]].to(frames.device)
        result = result.masked_fill(absent[:, None].to(frames.device), torch.nan) if missing else result
        return result if frames.ndim == given.ndim else result[0]

    def to(self, device: torch.device | str) -> Self:
        """Move the network to a device."""
        self.network.to(device)
        return self

    def save(self, out: Path | str) -> None:
        """Write a weights folder of the network as it is now. Raises WeightsError, also when the folder exists."""
        header = evolve(self.metadata, origin=evolve(self.metadata.origin, date=now()))
        write_folder(header, self.network.state_dict(), Path(out))

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Upload the weights folder to a repository `org/name` of the Hugging Face hub, made if it is not there.

        Returns the URL that `load_pretrained` takes. Raises WeightsError, also where huggingface_hub is not installed.
        """
        if find_spec("huggingface_hub") is None:
            raise WeightsError(f"{repository}: {NEEDS_HUB}")
        from huggingface_hub import HfApi

        with TemporaryDirectory(prefix="opframe-") as folder:
            self.save(Path(folder) / "weights")
            try:
                api = HfApi()
                api.create_repo(repository, private=private, exist_ok=True)
                api.upload_folder(repo_id=repository, folder_path=Path(folder) / "weights")
            except Exception as error:  # of the hub's package, of what it is made on, or of the network
                raise WeightsError(f"{repository}: cannot be uploaded ({error})") from error
        return f"hf://{repository}"

    def _rolled_out(self, seen: Tensor, steps: int, told: Conditions, missing: bool) -> Tensor:
        """The network's roll-out, in evaluation mode."""
        fields, grid = self.metadata.fields, tuple(seen.shape[3:])
        training = [module for module in self.network.modules() if module.training]
        self.network.eval()
        try:
            with constant_weights():
                return model_forecast(self.network, fields.horizon, missing)(seen, steps, told)
        except (ConfigError, RuntimeError, ValueError) as error:
            if grid == fields.grid:
                raise
            raise ConfigError(
                f"frames are given on the grid {list(grid)}, on which the network cannot work ({error}); it was made "
                f"for {list(fields.grid)}"
            ) from error
        finally:
            for module in training:
                module.training = True

    def _checked(self, frames: Tensor, steps: int, units: Units) -> Tensor:
        """The frames as (B, T, C, *grid). Raises ConfigError."""
        fields = self.metadata.fields
        slots, axes = len(fields.channels), len(fields.grid)
        own = {units.channels} if units.channels else {len(item.channels) for item in self.metadata.datasets}
        widths = sorted({*own, slots}) if own else list(range(1, slots + 1))
        given = frames if frames.ndim == axes + 3 else frames[None]
        if given.ndim != axes + 3 or given.shape[2] not in widths or given.shape[1] < fields.history:
            counts = " or ".join(map(str, widths))
            raise ConfigError(
                f"frames have the shape {tuple(frames.shape)}, but expected (T, C, *grid) or (B, T, C, *grid), with T "
                f"of at least {fields.history}, C of {counts} ({', '.join(fields.channels)}) and {axes} grid axes"
            )
        if steps < 1:
            raise ConfigError(f"steps = {steps}, but a forecast has at least one frame")
        return given

    def _told(
        self, conditions: Conditions | Mapping[str, float | Tensor] | None, frames: Tensor, units: Units
    ) -> Conditions:
        """The conditions of frames (B, T, C, *grid), on their device. Raises ConfigError."""
        fields, device, samples = self.metadata.fields, frames.device, len(frames)
        if isinstance(conditions, Conditions):
            given, expected = tuple(conditions.parameters.shape), (samples, len(fields.parameters))
            if given != expected:
                raise ConfigError(f"conditions.parameters are {given}, expected {expected}")
            return changed(conditions, lambda tensor: tensor.to(device))
        told = unknown_conditions(evolve(fields, grid=tuple(frames.shape[3:])), samples, device)
        told.dataset.fill_(units.dataset)
        for name, value in (conditions or {}).items():
            if name not in fields.parameters:
                known = ", ".join(fields.parameters) or "none"
                raise ConfigError(
                    f"conditions: there is no parameter '{name}'{did_you_mean(name, fields.parameters)}; the network "
                    f"was told of: {known}"
                )
            numbers = torch.as_tensor(value, dtype=torch.float32, device=device)
            if numbers.shape not in ((), (samples,)):
                raise ConfigError(f"conditions: {name} has the shape {tuple(numbers.shape)}, expected one or {samples}")
            told.parameters[:, fields.parameters.index(name)] = numbers
        return told

    def _units(self, dataset: str | None) -> Units:
        """What is known of frames, of the dataset that is named here or was when the weights were read."""
        header, where = self.metadata, self._location
        units = self._chosen if dataset is None else units_of(header, where, dataset)
        return units_of_any(header, where) if units is None else units
