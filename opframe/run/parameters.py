"""Which parameters are trained, and with which learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from opframe.config.settings import Group
from opframe_registry import ConfigError, did_you_mean


def assign_groups(network: nn.Module, parts: Mapping[str, Sequence[str]], groups: Sequence[Group]) -> list[list[str]]:
    """The names of the parameters of each group, and last of those that no group matches.

    `parts` are the backbone's parts, whose names may stand in `Group.match` for their patterns. Raises ConfigError
    for a pattern that matches nothing, and if nothing is left to be trained.
    """
    names = [name for name, _ in network.named_parameters()]
    assigned: list[list[str]] = [[] for _ in range(len(groups) + 1)]
    patterns = [_patterns(names, parts, index, group) for index, group in enumerate(groups)]
    for name in names:
        matching = (index for index, mine in enumerate(patterns) if any(fnmatchcase(name, item) for item in mine))
        assigned[next(matching, len(groups))].append(name)
    if not assigned[-1] and all(group.frozen for group in groups):
        raise ConfigError("parameters: every parameter is frozen, so that there is nothing to train")
    return assigned


def _patterns(names: Sequence[str], parts: Mapping[str, Sequence[str]], index: int, group: Group) -> list[str]:
    found: list[str] = []
    for word in group.match:
        patterns = parts.get(word, (word,))
        if not any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
            known = ", ".join(parts) or "none"
            raise ConfigError(
                f"parameters[{index}].match: '{word}' matches no parameter of this backbone"
                f"{did_you_mean(word, [*parts, *names])}; its parts: {known}; a name looks like '{names[0]}'"
            )
        found += patterns
    return found


def parameter_groups(
    network: nn.Module, parts: Mapping[str, Sequence[str]], groups: Sequence[Group]
) -> list[dict[str, Any]]:
    """Freeze what is to be frozen; the rest as torch's parameter groups. Raises ConfigError as `assign_groups`."""
    parameters = dict(network.named_parameters())
    result: list[dict[str, Any]] = []
    for names, group in zip(assign_groups(network, parts, groups), [*groups, None], strict=True):
        members = [parameters[name] for name in names]
        if group is not None and group.frozen:
            for parameter in members:
                parameter.requires_grad_(False)
            continue
        rate = {"lr": group.learning_rate} if group is not None and group.learning_rate is not None else {}
        result += [{"params": members, **rate}] if members else []
    return result


def training_mode(network: nn.Module) -> None:
    """Put a network into training mode, except for the modules whose parameters are all frozen.

    What such a module keeps beside its parameters (averages of a batch norm, a router's temperature) stays as it is.
    """
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
