"""What side_by_side.py compares, with the targets of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from benchmarks.sides import Side, Straightforward, random_batch, sides
from opframe.bench.timing import Call
from opframe.bench.work import Work, count_work
from opframe_fno import FNO
from opframe_pot import DPOT, MoEPOT
from opframe_pot.experts import weighted_experts
from opframe_pot.moepot import Mixture
from opframe_registry import Backbone, Conditions, Fields, Prediction
from tests.reference import straightforward
from tests.reference.mixture import every_expert

CPU = torch.device("cpu")
FRAMES = 10
"""Steps of a roll-out that are timed together."""

FIELDS = Fields(channels=("u", "v", "p", "rho"), grid=(128, 128), history=10)
TINY = DPOT(size="tiny", **DPOT.presets["tiny"])
SMALL = DPOT(size="small", **DPOT.presets["small"])
MOE = MoEPOT(size="tiny", **MoEPOT.presets["tiny"])
FOURIER = FNO(width=32, depth=4, modes=(20,))


@frozen(kw_only=True)
class Comparison:
    """Calls that do the same `parts` times, and by how much the others' outputs differ from ours."""

    ours: Call
    theirs: Mapping[str, Call]
    errors: Mapping[str, float]
    parts: int = 1


@frozen(kw_only=True)
class Counted:
    """Two counts; `relative` if their ratio is what the target is about."""

    ours: float
    theirs: float
    unit: float
    relative: bool


@frozen(kw_only=True)
class Case:
    """One row: its label, how to make what is timed, and must and aim by what it is compared with."""

    label: str
    targets: Mapping[str, tuple[float, float]]
    make: Callable[[bool], Comparison | Mapping[str, Counted]] = field(repr=False)
    counted: bool = False


def _shrunk(settings: Backbone, small: bool) -> tuple[Backbone, Fields]:
    """The settings, or for a test of the scripts tiny ones."""
    if not small:
        return settings, FIELDS
    tiny: dict[str, Any] = {"width": 16, "depth": 1, "size": None}
    tiny |= {"modes": (4,)} if isinstance(settings, FNO) else {"heads": 2}
    return evolve(settings, **tiny), evolve(FIELDS, grid=(16, 16), history=3)


def _errors(found: Mapping[str, Side]) -> dict[str, float]:
    expected = {name: side.forward() for name, side in found.items()}
    return {name: difference(expected["ours"], other) for name, other in expected.items() if name != "ours"}


def difference(value: Tensor, expected: Tensor) -> float:
    """‖value − expected‖ / ‖expected‖."""
    return float((value - expected).norm() / expected.norm())


def _with(found: Mapping[str, Side], call: Callable[[Side], Call], parts: int = 1) -> Comparison:
    calls = {name: call(side) for name, side in found.items()}
    return Comparison(ours=calls.pop("ours"), theirs=calls, errors=_errors(found), parts=parts)


def training(settings: Backbone, batch: int, small: bool) -> Comparison:
    """A whole step: noise, forward, loss, backward, clipping, optimizer."""
    return _with(sides(*_shrunk(settings, small), batch), lambda side: side.step)


def forward(settings: Backbone, batch: int, small: bool) -> Comparison:
    """A forward pass that folds its weights."""
    return _with(sides(*_shrunk(settings, small), batch), lambda side: side.forward)


def rolling(settings: Backbone, batch: int, small: bool) -> Comparison:
    """Steps of a roll-out, as in evaluation."""
    return _with(sides(*_shrunk(settings, small), batch), lambda side: partial(side.roll_out, FRAMES), FRAMES)


def bfloat16(settings: Backbone, batch: int, small: bool) -> Comparison:
    """A training step in bfloat16 against float32; the error is that of our output against float64."""
    found = sides(*_shrunk(settings, small), batch, bfloat16=True)
    slow = cast(Straightforward, found["straightforward"])
    with torch.no_grad():
        exact: Prediction = copy.deepcopy(slow.network).double()(slow.batch.inputs.double())
    error = difference(found["ours"].forward().double(), exact.field)
    theirs = {name: side.step for name, side in found.items() if name != "ours"}
    return Comparison(ours=found["ours"].step, theirs=theirs, errors=dict.fromkeys(theirs, error))


def experts(datasets: int, batch: int, small: bool) -> Comparison:
    """The routed experts of one block, forward and backward. Samples of one dataset choose the same ones."""
    settings, fields = _shrunk(MOE, small)
    if not isinstance(settings, MoEPOT):
        raise TypeError(settings.name)
    side, channels = fields.grid[0] // settings.patch, settings.hidden
    mixture, slow = Mixture(settings, 2), straightforward(settings, fields).get_submodule("blocks.0.MoE")
    slow.load_state_dict(mixture.state_dict())
    choices = [torch.randperm(settings.routed_experts)[: settings.chosen_experts] for _ in range(datasets)]
    chosen = torch.stack([choices[sample % datasets] for sample in range(batch)])
    shares = torch.rand(chosen.shape).softmax(1).requires_grad_()
    f = torch.randn(batch, channels, side, side)
    ours, theirs = (each.detach().clone().requires_grad_() for each in (f.permute(0, 2, 3, 1).contiguous(), f))

    def sparse() -> Tensor:
        return weighted_experts(mixture.experts, ours, chosen, shares)

    def dense() -> Tensor:
        every = torch.zeros(batch, settings.routed_experts).scatter(1, chosen, shares)
        return every_expert(cast(nn.ModuleList, slow.get_submodule("experts")), theirs, every)

    error = difference(sparse().detach().permute(0, 3, 1, 2), dense().detach())
    leaves = [ours, theirs, shares, *mixture.parameters(), *slow.parameters()]
    calls = [partial(_backward, call, torch.randn_like(call()), leaves) for call in (sparse, dense)]
    return Comparison(ours=calls[0], theirs={"straightforward": calls[1]}, errors={"straightforward": error})


def _backward(call: Callable[[], Tensor], probe: Tensor, leaves: Iterable[Tensor]) -> None:
    for leaf in leaves:  # as in a step of training, gradients are not added to those of the step before
        leaf.grad = None
    torch.autograd.backward(call(), probe)


def fourier(settings: FNO, batch: int, small: bool) -> Comparison:
    """A training step of FNO, against neuralop's too if it is installed, with as many modes and no channel MLP."""
    shrunk, fields = _shrunk(settings, small)
    found = sides(shrunk, fields, batch)
    compared = _with(found, lambda side: side.step)
    network = _neuralop(cast(FNO, shrunk), fields)
    if network is None:
        return compared
    other = Straightforward(network, random_batch(fields, batch))
    return evolve(compared, theirs={**compared.theirs, "neuralop": other.step})


class _Framed(nn.Module):
    """A network of images as one of frames: (B, T, C, X, Y) -> Prediction of (B, S, C, X, Y)."""

    def __init__(self, images: nn.Module, horizon: int) -> None:
        super().__init__()
        self.images, self.horizon = images, horizon

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        """Frames and channels are one axis."""
        return Prediction(field=torch.unflatten(self.images(u.flatten(1, 2)), 1, (self.horizon, -1)))


def _neuralop(settings: FNO, fields: Fields) -> nn.Module | None:
    if find_spec("neuralop") is None:
        return None
    modes1, modes2 = settings.modes_along(fields.grid)
    channels = len(fields.channels)
    network = import_module("neuralop.models").FNO(
        n_modes=(2 * modes1, 2 * modes2 - 1),
        in_channels=fields.history * channels,
        out_channels=fields.horizon * channels,
        hidden_channels=settings.width,
        n_layers=settings.depth,
        use_channel_mlp=False,
    )
    return _Framed(network, fields.horizon)


def work(settings: Backbone, batch: int, small: bool) -> dict[str, Counted]:
    """The work of a training step, counted."""
    found = sides(*_shrunk(settings, small), batch)
    ours, theirs = (_work(found[name]) for name in ("ours", "straightforward"))
    return {
        "GFLOP": Counted(ours=ours.flops, theirs=theirs.flops, unit=1e9, relative=True),
        "kernels": Counted(ours=ours.kernels, theirs=theirs.kernels, unit=1, relative=False),
        "peak memory in MB": Counted(ours=ours.memory, theirs=theirs.memory, unit=1e6, relative=True),
    }


def _work(side: Side) -> Work:
    return count_work(side.step, CPU)


CASES: Mapping[str, Case] = {
    "tiny-1": Case(
        label="training step, DPOT-Ti, batch 1", targets={"any": (1.7, 2.2)}, make=partial(training, TINY, 1)
    ),
    "tiny-4": Case(
        label="training step, DPOT-Ti, batch 4", targets={"any": (2.0, 2.5)}, make=partial(training, TINY, 4)
    ),
    "tiny-8": Case(
        label="training step, DPOT-Ti, batch 8", targets={"any": (2.4, 3.0)}, make=partial(training, TINY, 8)
    ),
    "forward": Case(label="forward, DPOT-Ti, batch 4", targets={"any": (2.3, 3.2)}, make=partial(forward, TINY, 4)),
    "roll-out": Case(
        label="roll-out step, DPOT-Ti, batch 4", targets={"any": (2.8, 3.6)}, make=partial(rolling, TINY, 4)
    ),
    "small-1": Case(
        label="training step, DPOT-S, batch 1", targets={"any": (1.8, 2.3)}, make=partial(training, SMALL, 1)
    ),
    "experts": Case(
        label="routed experts, MoE-POT-Ti, 4 samples alike", targets={"any": (3.5, 4.2)}, make=partial(experts, 1, 4)
    ),
    "experts-mixed": Case(
        label="routed experts, MoE-POT-Ti, 4 samples that differ",
        targets={"any": (3.5, 4.2)},
        make=partial(experts, 4, 4),
    ),
    "moe-4": Case(
        label="training step, MoE-POT-Ti, batch 4", targets={"any": (2.2, 3.0)}, make=partial(training, MOE, 4)
    ),
    "fno": Case(
        label="training step, FNO, batch 4",
        targets={"any": (2.2, 3.0), "neuralop": (1.6, 2.0)},
        make=partial(fourier, FOURIER, 4),
    ),
    "bfloat16": Case(
        label="training step, DPOT-Ti in bfloat16, batch 4",
        targets={"any": (2.3, 3.0)},
        make=partial(bfloat16, TINY, 4),
    ),
    "work": Case(
        label="DPOT-Ti, batch 4",
        targets={"GFLOP": (0.70, 0.68), "kernels": (800, 500), "peak memory in MB": (0.85, 0.78)},
        make=partial(work, TINY, 4),
        counted=True,
    ),
}
