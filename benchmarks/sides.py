"""Implementations that are compared: each does the same training step, forward pass and roll-out its own way.

Legend: B batch, T frames in, S frames out, C channels, X Y grid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from benchmarks.published import published_network, published_training
from opframe.config.building import build_loss, build_network, build_optimizer, build_schedule
from opframe.config.settings import Trainer as Settings
from opframe.evaluation.protocol import Evaluator
from opframe.mixture.conditions import unknown_conditions
from opframe.mixture.rollout import model_forecast
from opframe.processes import Processes
from opframe.run.checkpoint import Checkpoints
from opframe.run.step import Step
from opframe.run.trainer import Trainer
from opframe_autoregressive import PUBLISHED_NOISE, RelativeL2
from opframe_optimizers import Adam, Constant
from opframe_registry import Backbone, Batch, Fields, Prediction
from tests.reference import straightforward

CLIP = 1e4
LEARNING_RATE = 1e-6
"""So low that what is timed stays the same network on the same data."""
BALANCE = 0.1


class Side(Protocol):
    """One implementation with its data and its optimizer."""

    def step(self) -> object:
        """One step of training."""

    def forward(self) -> Tensor:
        """The next frames, (B, S, C, X, Y), without gradients."""

    def roll_out(self, frames: int) -> Tensor:
        """Frames predicted one after another, (B, frames, C, X, Y)."""


def trainer_of(network: nn.Module, fields: Fields, bfloat16: bool = False) -> Trainer:
    """The trainer of a run on a CPU, with neither data nor a folder: what is timed is its step on a given batch."""
    settings = Settings(steps=1, clip=CLIP, precision="bfloat16" if bfloat16 else "float32")
    processes = Processes(rank=0, count=1, device=torch.device("cpu"))
    optimizer = build_optimizer(Adam(learning_rate=LEARNING_RATE), [{"params": list(network.parameters())}])
    evaluator = Evaluator(sources=(), zero_shot=(), fields=fields, processes=processes, batch_size=1, bfloat16=bfloat16)
    step = Step(
        settings=settings,
        backbone=network,
        loss=build_loss(RelativeL2(penalty_weight=BALANCE), fields),
        optimizer=optimizer,
        schedule=build_schedule(Constant(), optimizer, settings.steps),
        processes=processes,
    )
    return Trainer(
        now=step,
        checkpoints=Checkpoints(Path("never-written"), settings.keep, processes),
        evaluator=evaluator,
    )


class Ours:
    """A run's own trainer and evaluator."""

    def __init__(self, network: nn.Module, fields: Fields, batch: Batch, bfloat16: bool = False) -> None:
        self.network, self.batch = network.train(), batch
        self.trainer = trainer_of(network, fields, bfloat16)

    def step(self) -> None:
        """The trainer's."""
        self.trainer.train_step(self.batch)

    @torch.no_grad()
    def forward(self) -> Tensor:
        """As in training, so that weights are folded every time."""
        self.network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.trainer.evaluator.bfloat16):
            prediction: Prediction = self.network(self.batch.inputs, self.batch.conditions)
        return prediction.field

    @torch.no_grad()
    def roll_out(self, frames: int) -> Tensor:
        """The evaluator's: what is derived from the weights is made once for all frames."""
        self.network.eval()
        return self.trainer.evaluator.run(
            model_forecast(self.network, 1), self.batch.inputs, frames, self.batch.conditions
        )


class Straightforward:
    """The recipe word by word, with torch's optimizer as it comes on a CPU: one weight after another."""

    def __init__(self, network: nn.Module, batch: Batch) -> None:
        self.network, self.batch = network.train(), batch
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.9), weight_decay=1e-6, foreach=False
        )

    def step(self) -> object:
        """Noise, the sum of relative errors, backward, clipping, and Adam."""
        u, target = self.batch.inputs, self.batch.targets
        scale = u.square().sum((1, 3, 4), keepdim=True).sqrt()
        prediction: Prediction = self.network(u + PUBLISHED_NOISE * scale * torch.randn_like(u), self.batch.conditions)
        error = (prediction.field - target).square().sum((1, 3, 4)).sqrt()
        loss = (error / (target.square().sum((1, 3, 4)).sqrt() + 1e-8)).mean(1).sum()
        for penalty in prediction.penalties.values():
            loss = loss + BALANCE * penalty
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def forward(self) -> Tensor:
        """The next frames."""
        prediction: Prediction = self.network(self.batch.inputs, self.batch.conditions)
        return prediction.field

    @torch.no_grad()
    def roll_out(self, frames: int) -> Tensor:
        """Each frame from the window with those before it."""
        self.network.eval()
        return model_forecast(self.network, 1)(self.batch.inputs, frames, self.batch.conditions)


class Published:
    """The published network in the published order of the published pieces, on (B, X, Y, T, C)."""

    def __init__(self, network: nn.Module, loss: Any, optimizer: Any, batch: Batch) -> None:
        self.network, self.loss = network.train(), loss
        self.inputs, self.targets = (_published_order(frames) for frames in (batch.inputs, batch.targets))
        self.mask = torch.ones_like(self.targets)
        self.optimizer = optimizer(network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.9), weight_decay=1e-6)

    def step(self) -> object:
        """As in its training loop; the second output are class logits, or for MoE-POT those and the balance loss."""
        u = self.inputs
        noise = PUBLISHED_NOISE * torch.sum(u**2, dim=(1, 2, 3), keepdim=True) ** 0.5 * torch.randn_like(u)
        field, *rest = self.network(u + noise)
        loss = self.loss(field, self.targets, mask=self.mask)
        if len(rest) > 1:
            loss = loss + BALANCE * rest[1]
        self.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def forward(self) -> Tensor:
        """The next frames."""
        return self._predict(self.inputs).permute(0, 3, 4, 1, 2)

    @torch.no_grad()
    def roll_out(self, frames: int) -> Tensor:
        """Each frame from the window with those before it."""
        self.network.eval()
        window, predicted = self.inputs, []
        for _ in range(frames):
            predicted.append(self._predict(window))
            window = torch.cat([window[..., 1:, :], predicted[-1]], dim=3)
        return torch.cat(predicted, dim=3).permute(0, 3, 4, 1, 2)

    def _predict(self, window: Tensor) -> Tensor:
        field: Tensor = self.network(window)[0]
        return field


def _published_order(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 4, 1, 2).contiguous()


def sides(settings: Backbone, fields: Fields, batch: int, bfloat16: bool = False) -> dict[str, Side]:
    """Ours, the straightforward way, and where it is at hand the published one, with the same weights and data."""
    torch.manual_seed(0)
    network, slow = build_network(settings, fields), straightforward(settings, fields)
    slow.load_state_dict(network.state_dict())
    data = random_batch(fields, batch)
    found: dict[str, Side] = {
        "ours": Ours(network, fields, data, bfloat16),
        "straightforward": Straightforward(slow, data),
    }
    theirs, training = published_network(settings, fields), published_training()
    if theirs is not None and training is not None:
        missing = theirs.load_state_dict(_published_names(slow), strict=False)
        if missing.unexpected_keys or any(not key.startswith("cls_head.") for key in missing.missing_keys):
            raise SystemExit(f"the published network has other weights: {missing}")
        found["published"] = Published(theirs, *training, data)
    return found


def _published_names(network: nn.Module) -> dict[str, Tensor]:
    """Without the temperature, which the published network keeps as a number."""
    return {name: weight for name, weight in network.state_dict().items() if not name.endswith("temperature")}


def random_batch(fields: Fields, batch: int) -> Batch:
    """Random frames. The time that a step takes does not depend on them."""
    frames = torch.randn(batch, fields.history + fields.horizon, len(fields.channels), *fields.grid)
    return Batch(
        inputs=frames[:, : fields.history].contiguous(),
        targets=frames[:, fields.history :].contiguous(),
        mask=torch.ones(1, 1, *[1] * (1 + len(fields.grid))),
        conditions=unknown_conditions(fields, batch, torch.device("cpu")),
        seeds=torch.arange(batch),
    )
