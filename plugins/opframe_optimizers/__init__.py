"""Adam, AdamW, LAMB and Muon, and schedules of the learning rate; all but LAMB and Muon are torch's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from attrs import Attribute, field, frozen
from attrs.validators import and_, ge, gt, in_, le, lt

from opframe_registry import Component, Optimizer, Schedule, hookimpl

if TYPE_CHECKING:
    import torch


def _averaging(component: object, attribute: Attribute[tuple[float, float]], value: tuple[float, float]) -> None:
    if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
        raise ValueError(
            f"{attribute.name} = {list(value)} must be two numbers from 0 to below 1, such as [0.9, 0.999]"
        )


@final
@frozen(kw_only=True)
class Adam(Optimizer):
    """Adam with L2 weight decay, added to the gradient (the defaults are those of DPOT)."""

    name: ClassVar[str] = "adam"
    betas: tuple[float, float] = field(
        default=(0.9, 0.9), validator=_averaging, metadata={"help": "decay of the averages of gradient and square"}
    )
    weight_decay: float = field(default=1e-6, validator=ge(0.0), metadata={"help": "added to the gradient, times w"})
    epsilon: float = field(default=1e-8, validator=gt(0.0), metadata={"help": "added to the root of the squares"})

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the torch optimizer, as one fused kernel where the device has it."""
        return _build(self, parameters)


@final
@frozen(kw_only=True)
class AdamW(Optimizer):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019)."""

    name: ClassVar[str] = "adamw"
    betas: tuple[float, float] = field(
        default=(0.9, 0.999), validator=_averaging, metadata={"help": "decay of the averages of gradient and square"}
    )
    weight_decay: float = field(
        default=1e-2, validator=ge(0.0), metadata={"help": "taken off the weights, times learning rate"}
    )
    epsilon: float = field(default=1e-8, validator=gt(0.0), metadata={"help": "added to the root of the squares"})

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the torch optimizer, as one fused kernel where the device has it."""
        return _build(self, parameters)


def _build(settings: Adam | AdamW, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    import torch

    weights = [weight for group in parameters for weight in group["params"]]
    return (torch.optim.Adam if isinstance(settings, Adam) else torch.optim.AdamW)(
        list(parameters),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=all(weight.device.type in ("cpu", "cuda") and weight.is_floating_point() for weight in weights),
    )


def _between(component: object, attribute: Attribute[tuple[float, float]], value: tuple[float, float]) -> None:
    if len(value) != 2 or not 0 <= value[0] <= value[1] or value[1] == 0:
        raise ValueError(f"{attribute.name} = {list(value)} must be two numbers from 0 on, the larger one last")


@final
@frozen(kw_only=True)
class Lamb(Optimizer):
    """Adam whose step in every weight tensor is as long as the tensor is large, for large batches (You et al., 2020).

    arXiv 1904.00962, algorithm 2. Weight decay is apart from the gradient; the default is that of DPOT.
    """

    name: ClassVar[str] = "lamb"
    betas: tuple[float, float] = field(
        default=(0.9, 0.999), validator=_averaging, metadata={"help": "decay of the averages of gradient and square"}
    )
    weight_decay: float = field(
        default=1e-4, validator=ge(0.0), metadata={"help": "pull of every weight to zero, before its step is scaled"}
    )
    epsilon: float = field(default=1e-6, validator=gt(0.0), metadata={"help": "added to the root of the squares"})
    bounds: tuple[float, float] = field(
        default=(0.0, 10.0),
        validator=_between,
        metadata={"help": "least and largest norm that a tensor counts as having"},
    )
    debias: bool = field(default=True, metadata={"help": "make up for averages that begin at zero, as Adam does"})

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the torch optimizer."""
        from opframe_optimizers.lamb import LambOptimizer

        return LambOptimizer(
            parameters,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            bounds=self.bounds,
            debias=self.debias,
        )


@final
@frozen(kw_only=True)
class Muon(Optimizer):
    """Steps whose singular values are all alike, for weights that are matrices; AdamW for the others (Jordan, 2024).

    A 1×1 convolution is a matrix. One learning rate does for both, as a matrix's step is scaled to the size of one of
    AdamW (`scale = "rms"`; Liu et al., 2025, arXiv 2502.16982) unless `scale = "shape"`, as at first published.
    """

    name: ClassVar[str] = "muon"
    momentum: float = field(
        default=0.95, validator=[ge(0.0), lt(1.0)], metadata={"help": "decay of the average of a matrix's gradient"}
    )
    betas: tuple[float, float] = field(
        default=(0.9, 0.999), validator=_averaging, metadata={"help": "decay of the averages of AdamW"}
    )
    weight_decay: float = field(
        default=1e-2, validator=ge(0.0), metadata={"help": "taken off all weights, times learning rate"}
    )
    epsilon: float = field(default=1e-8, validator=gt(0.0), metadata={"help": "added to the root of the squares"})
    scale: Literal["rms", "shape"] = field(
        default="rms",
        validator=in_(("rms", "shape")),
        metadata={"help": "of a matrix's step: 0.2 √(larger side), or √(rows / columns) where there are more rows"},
    )

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the torch optimizer."""
        from opframe_optimizers.muon import MuonOptimizer

        return MuonOptimizer(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            scale=self.scale,
        )


@final
@frozen(kw_only=True)
class OneCycle(Schedule):
    """Cosine from peak / div_factor up to the peak, then down to start / final_div_factor (Smith and Topin, 2018).

    As published for DPOT, beta1 (or the momentum) moves against the learning rate, 0.95 to 0.85 at the peak and back,
    whatever the optimizer's own value; `cycle_momentum = false` leaves it alone.
    """

    name: ClassVar[str] = "one_cycle"
    warmup: float = field(
        default=0.2, validator=and_(ge(0.0), lt(1.0)), metadata={"help": "fraction of the run that the rise takes"}
    )
    div_factor: float = field(default=1e4, validator=ge(1.0), metadata={"help": "peak / first learning rate"})
    final_div_factor: float = field(default=1e4, validator=ge(1.0), metadata={"help": "first / last learning rate"})
    cycle_momentum: bool = field(default=True, metadata={"help": "move beta1 between 0.95 and 0.85 too"})

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the torch scheduler."""
        from torch.optim.lr_scheduler import OneCycleLR

        # Torch divides by the length of the rise less one step: a rise of exactly one step must be a bit shorter.
        warmup = self.warmup if self.warmup * steps != 1 else self.warmup * (1 - 1e-9)
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=warmup,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
            cycle_momentum=self.cycle_momentum,
        )


@final
@frozen(kw_only=True)
class Step(Schedule):
    """The learning rate drops by a factor at equal intervals."""

    name: ClassVar[str] = "step"
    drops: int = field(default=4, validator=ge(0), metadata={"help": "number of drops, evenly over the run"})
    factor: float = field(
        default=0.5, validator=and_(gt(0.0), le(1.0)), metadata={"help": "learning rate after / before a drop"}
    )

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the torch scheduler."""
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, lambda step: self.factor ** min(step * (self.drops + 1) // steps, self.drops))


@final
@frozen(kw_only=True)
class Linear(Schedule):
    """Linear warm-up to the peak, then linearly down."""

    name: ClassVar[str] = "linear"
    warmup: float = field(
        default=0.0, validator=and_(ge(0.0), lt(1.0)), metadata={"help": "fraction of the run that the rise takes"}
    )
    final: float = field(default=0.0, validator=ge(0.0), metadata={"help": "learning rate at the end / peak"})

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the torch scheduler."""
        from torch.optim.lr_scheduler import LambdaLR

        rise = min(round(self.warmup * steps), steps - 1)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / (rise + 1)
            return 1 + (self.final - 1) * min((step - rise) / max(steps - 1 - rise, 1), 1.0)

        return LambdaLR(optimizer, factor)


@final
@frozen(kw_only=True)
class CosineRestarts(Schedule):
    """Half a cosine from the peak down, again and again (SGDR, Loshchilov and Hutter, 2017)."""

    name: ClassVar[str] = "cosine_restarts"
    cycles: int = field(default=3, validator=gt(0), metadata={"help": "number of cycles in the run"})
    growth: int = field(default=1, validator=gt(0), metadata={"help": "length of a cycle / the one before"})
    final: float = field(
        default=0.0, validator=and_(ge(0.0), le(1.0)), metadata={"help": "lowest learning rate / peak"}
    )

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the torch scheduler. The first cycle is rounded up to whole steps."""
        from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

        first = -(-steps // sum(self.growth**cycle for cycle in range(self.cycles)))
        lowest = self.final * min(group["lr"] for group in optimizer.param_groups)
        return CosineAnnealingWarmRestarts(optimizer, T_0=first, T_mult=self.growth, eta_min=lowest)


@final
@frozen(kw_only=True)
class Cyclic(Schedule):
    """The learning rate goes up and down in straight lines, again and again (Smith, 2017).

    With the mode `triangular2` every cycle rises half as high as the one before; with `exp_range` the height decays
    with every step after the first peak.
    """

    name: ClassVar[str] = "cyclic"
    cycles: int = field(default=4, validator=gt(0), metadata={"help": "number of cycles in the run"})
    lowest: float = field(
        default=0.1, validator=and_(ge(0.0), le(1.0)), metadata={"help": "learning rate at the ends of a cycle / peak"}
    )
    rise: float = field(
        default=0.5, validator=and_(gt(0.0), lt(1.0)), metadata={"help": "fraction of a cycle that its rise takes"}
    )
    mode: Literal["triangular", "triangular2", "exp_range"] = field(
        default="triangular", metadata={"help": "how high later cycles rise"}
    )
    decay: float = field(
        default=1.0, validator=and_(gt(0.0), le(1.0)), metadata={"help": "exp_range: height after / before a step"}
    )

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the torch scheduler; the momentum stays as it is."""
        from torch.optim.lr_scheduler import LambdaLR

        length = steps / self.cycles

        def factor(step: int) -> float:
            cycle, place = divmod(step / length, 1)
            fall = self.decay ** max(step - self.rise * length, 0.0)
            height = place / self.rise if place < self.rise else (1 - place) / (1 - self.rise)
            scale: float = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": fall}[self.mode]
            return self.lowest + (1 - self.lowest) * height * scale

        return LambdaLR(optimizer, factor)


@final
@frozen(kw_only=True)
class InverseSquareRoot(Schedule):
    """Linear warm-up to the peak, then peak · √(warm-up / step) (Vaswani et al., 2017)."""

    name: ClassVar[str] = "inverse_square_root"
    warmup: float = field(
        default=0.1, validator=and_(ge(0.0), le(1.0)), metadata={"help": "fraction of the run that the rise takes"}
    )

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the torch scheduler."""
        from torch.optim.lr_scheduler import LambdaLR

        rise = max(round(self.warmup * steps), 1)
        return LambdaLR(optimizer, lambda step: min((step + 1) / rise, (rise / (step + 1)) ** 0.5))


@final
@frozen(kw_only=True)
class Constant(Schedule):
    """The learning rate stays as it is."""

    name: ClassVar[str] = "constant"

    def build(
        self,
        optimizer: torch.optim.Optimizer,
        steps: int,
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the torch scheduler."""
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, lambda _step: 1.0)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [Adam, AdamW, Lamb, Muon, OneCycle, Step, Linear, CosineRestarts, Cyclic, InverseSquareRoot, Constant]
