"""What a person may have meant by a key that there is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opframe_registry import did_you_mean

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "lr": ("learning_rate",),
    "max_lr": ("learning_rate",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "epochs": ("steps",),
    "iterations": ("steps",),
    "max_steps": ("steps",),
    "grad_clip": ("clip",),
    "gradient_clip": ("clip",),
    "amp": ("precision",),
    "dtype": ("precision",),
    "gradient_accumulation": ("accumulate",),
    "eval_every": ("evaluate_every",),
    "save_every": ("checkpoint_every",),
    "num_workers": ("workers",),
    "resolution": ("grid",),
    "res": ("grid",),
    "t_in": ("history",),
    "t_ar": ("frames",),
    "t_bundle": ("horizon",),
    "normalise": ("normalize", "normalizer"),
    "normalization": ("normalizer", "normalize"),
    "wd": ("weight_decay",),
    "eps": ("epsilon",),
    "beta1": ("betas",),
    "momentum": ("betas",),
    "dim": ("width",),
    "embed_dim": ("width",),
    "hidden_dim": ("width",),
    "hidden": ("width",),
    "hidden_channels": ("width",),
    "layers": ("depth",),
    "n_layers": ("depth",),
    "num_layers": ("depth",),
    "n_blocks": ("heads",),
    "num_heads": ("heads",),
    "n_heads": ("heads",),
    "patch_size": ("patch",),
    "name": ("label", "type", "title"),
    "file": ("url", "path"),
    "filename": ("url", "path"),
    "root": ("url", "path", "folder"),
    "path": ("url", "folder"),
    "output": ("folder",),
    "out": ("folder",),
    "n_train": ("train",),
    "ntrain": ("train",),
    "n_test": ("test",),
    "ntest": ("test",),
    "checkpoint": ("from",),
    "weights": ("from",),
}
"""Keys as other projects call them, with ours."""


def suggestion(key: str, known: Iterable[str]) -> str:
    """`; did you mean 'learning_rate'?` for `lr` or `learning_rte`, or nothing where no known key is near."""
    names = list(known)
    meant = [name for name in _SYNONYMS.get(key.lower(), ()) if name in names]
    return f"; did you mean '{meant[0]}'?" if meant else did_you_mean(key, names)
