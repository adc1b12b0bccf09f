"""The published implementations, from checkouts on this machine that environment variables name.

    OPFRAME_BENCH_DPOT    a checkout of github.com/HaoZhongkai/DPOT: DPOT, FNO, their loss and their Adam
    OPFRAME_BENCH_MOEPOT  a checkout of github.com/haiyangxin/MoEPOT

Their files are imported from there as they are. Their networks work on (B, X, Y, T, C).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from opframe_fno import FNO
from opframe_pot import DPOT, MoEPOT
from opframe_registry import Backbone, Fields

CLASSES = 12
"""The published DPOT always classifies its 12 datasets; the loss does not use it."""


def checkout(variable: str) -> Path | None:
    """The folder that an environment variable names. Raises SystemExit if it is none."""
    told = os.environ.get(variable)
    if told is None:
        return None
    if not Path(told).is_dir():
        raise SystemExit(f"{variable}={told} is not a folder")
    return Path(told)


def published_network(settings: Backbone, fields: Fields) -> nn.Module | None:
    """The published network of these settings, or None where its code is not at hand."""
    root = checkout("OPFRAME_BENCH_MOEPOT" if isinstance(settings, MoEPOT) else "OPFRAME_BENCH_DPOT")
    if root is None:
        return None
    if isinstance(settings, FNO):
        return _fno(root, settings, fields)
    if not isinstance(settings, DPOT | MoEPOT):
        raise TypeError(f"there is no published {settings.name}")
    arguments: dict[str, Any] = {
        "img_size": fields.grid[0],
        "patch_size": settings.patch,
        "in_channels": len(fields.channels),
        "out_channels": len(fields.channels),
        "in_timesteps": fields.history,
        "out_timesteps": fields.horizon,
        "n_blocks": settings.heads,
        "embed_dim": settings.width,
        "out_layer_dim": settings.output_width,
        "depth": settings.depth,
        "modes": settings.modes,
        "mlp_ratio": settings.mlp_ratio,
        "n_cls": CLASSES,
        "time_agg": settings.time_aggregation,
    }
    if isinstance(settings, DPOT):
        return _network(load(root / "models/dpot.py").DPOTNet(**arguments))
    load(root / "models/MoE_conv.py", "models.MoE_conv")  # by which name the next file asks for it
    return _network(load(root / "models/moepot.py").MoEPOTNet(**arguments))


def _fno(root: Path, settings: FNO, fields: Fields) -> nn.Module:
    modes1, modes2 = settings.modes_along(fields.grid)
    made = load(root / "models/fno.py").FNO2d(
        modes1,
        modes2,
        settings.width,
        img_size=fields.grid[0],
        n_channels=len(fields.channels),
        in_timesteps=fields.history,
        out_timesteps=fields.horizon,
        n_layers=settings.depth,
        use_ln=settings.group_norm,
        n_cls=CLASSES,
    )
    return _network(made)


def _network(made: Any) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TypeError(f"{type(made)} is not a network")
    return made


def published_training() -> tuple[Any, Any] | None:
    """The published loss and class of optimizer, or None where the code is not at hand."""
    root = checkout("OPFRAME_BENCH_DPOT")
    if root is None:
        return None
    loss = load(root / "utils/criterion.py").SimpleLpLoss(size_average=False)
    return loss, load(root / "utils/optimizer.py").Adam


def load(path: Path, name: str | None = None) -> ModuleType:
    """The module in a file, by a name of its own. Raises SystemExit if it is not there."""
    name = name or f"published_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"{path} is not there; is this a checkout of the repository?")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
