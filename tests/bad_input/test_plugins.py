"""Plugins that are wrong: each is named with its fault when it is asked for, and stands in nobody else's way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bad_input_support import BEGUN, Case, complain
from opframe.cli.main import main
from opframe_registry import PluginError
from plugin_support import GOOD, install

ANY_KIND = '''
from typing import ClassVar
from attrs import field, frozen
import torch
from opframe_registry import (
    Backbone, Callback, Dataset, Logger, Metadata, Metric, Objective, Optimizer, Prediction, Sampler, Schedule, hookimpl
)

@frozen(kw_only=True)
class Odd(KIND):
    """Odd."""
    name: ClassVar[str] = "odd"
    FIELD
    def build(self, *arguments):
        BUILD
    METHOD

@hookimpl
def opframe_components():
    return [Odd]
'''
CACHES = ("__pycache__", "__pycache__/*")
LEFT = (*BEGUN, "run/checkpoints/**/*")  # checkpoints, where it was the evaluation at the end that failed
KEYS = {
    "Dataset": "datasets.0={type='odd'}",
    "Backbone": "backbone={type='odd'}",
    "Objective": "objective={type='odd'}",
    "Sampler": "sampler={type='odd'}",
    "Optimizer": "optimizer={type='odd'}",
    "Schedule": "schedule={type='odd'}",
    "Callback": "callbacks=[{type='odd'}]",
    "Logger": "loggers=[{type='odd'}]",
    "Metric": "metrics=[{type='odd'}]",
}


def installed(distribution: str, code: str) -> Callable[[Path], None]:
    """Arrange: a plugin beside the experiment."""

    def arrange(folder: Path) -> None:
        install(folder, distribution, code)

    return arrange


def not_offered(name: str, code: str, expected: str) -> Case:
    """A plugin that cannot be loaded, and is missed by a config that names what it should offer."""
    words = f"could not be loaded: plugin {name.replace('-', '_')} of {name}: "
    return Case(
        name=name,
        arrange=installed(name, code),
        settings=("sampler={type='odd'}",),
        expected=("unknown sampler 'odd'", words, expected),
        leaves=CACHES,
    )


def good(old: str = "", new: str = "") -> str:
    """A plugin that works, with one thing made wrong."""
    code = GOOD.replace("NAME", "odd")
    assert old in code
    return code.replace(old, new) if old else code


def wrong(name: str, kind: str, *expected: str, build: str = "return None", **others: str) -> Case:
    """A component whose `build`, or another part (`field`, `method`), is wrong."""
    code = ANY_KIND.replace("KIND", kind).replace("BUILD", build)
    for part in ("field", "method"):
        code = code.replace(part.upper(), others.get(part, ""))
    command = others.get("command", "run" if kind == "Logger" else "check")  # a logger begins with the run
    return Case(
        name=name,
        arrange=installed(name, code),
        settings=(others.get("setting", KEYS[kind]),),
        words=(command, "{folder}/experiment.toml"),
        expected=expected,
        leaves=(*CACHES, *(LEFT if command == "run" else ())),
    )


def blamed(name: str, kind: str, words: str, **parts: str) -> Case:
    """A component that is named with its plugin."""
    return wrong(name, kind, f"{kind.lower()} 'odd' of the plugin {name.replace('-', '_')}: {words}", **parts)


LOADING = [
    not_offered("import-fails", "import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_"),
    not_offered("syntax", "def (", "SyntaxError"),
    not_offered("exits", "raise SystemExit(3)", "SystemExit: 3"),
    not_offered("raises-at-import", "1 / 0", "ZeroDivisionError: division by zero"),
    not_offered("generator-exit", "raise GeneratorExit", "GeneratorExit"),
    not_offered("no-hook", "x = 1", "offers no components; implement the hook opframe_components with @hookimpl"),
    not_offered("hook-not-marked", good("@hookimpl\n", ""), "offers no components"),
    not_offered("hook-misspelt", good("def opframe_components", "def opframe_component"), "unknown hook"),
    not_offered("hook-with-arguments", good("opframe_components()", "opframe_components(x)"), "x"),
    not_offered("hook-raises", good("return [Odd]", "raise KeyError('x')"), "KeyError: 'x'"),
    not_offered("hook-exits", good("return [Odd]", "raise SystemExit(0)"), "SystemExit: 0"),
    not_offered("hook-returns-class", good("return [Odd]", "return Odd"), "expected a list of component classes"),
    not_offered("hook-returns-number", good("return [Odd]", "return 3"), "opframe_components returned 3; expected a"),
    not_offered("hook-returns-none", good("return [Odd]", "return None"), "offers no components"),
    not_offered("offers-nothing", good("return [Odd]", "return []"), "offers no components"),
    not_offered(
        "offers-int", good("return [Odd]", "return [int]"), "<class 'int'> is not a class derived from Dataset"
    ),
    not_offered("offers-object", good("[Odd]", "[Odd()]"), "is not a class derived from Dataset"),
    not_offered("offers-kind", good("[Odd]", "[Sampler]"), "is not a class derived from Dataset"),
    not_offered("offers-twice", good("[Odd]", "[Odd, Odd]"), "offers sampler 'odd' twice"),
    not_offered("wrong-base", good("Odd(Sampler)", "Odd"), "is not a class derived from Dataset, Backbone"),
    not_offered("no-attrs", good("@frozen(kw_only=True)", ""), "Odd is not an attrs class; decorate it with"),
    not_offered("no-name", good("name: ClassVar", "title: ClassVar"), "Odd has no name; add `name: ClassVar[str] = "),
    not_offered("empty-name", good('= "odd"', '= ""'), "Odd has no name"),
    not_offered("no-build", good("def build", "def other"), "Odd is abstract; it lacks build"),
    not_offered(
        "list-field", good("    def", "    x: list[int]\n    def"), "Odd.x: the type list[int] is not supported"
    ),
    not_offered("untyped-field", good("    def", "    x = field(default=1)\n    def"), "x"),
    not_offered("type-field", good("    def", "    type: int = 1\n    def"), "Odd has a field 'type', the key that"),
    not_offered("wrong-default", good("    def", "    x: int = 1.5\n    def"), "Odd.x: the default 1.5 is not of"),
    not_offered("presets-number", good("    def", "    presets = 3\n    def"), "Odd.presets is 3; expected a mapping"),
    not_offered("preset-number", good("    def", "    presets = {'a': 3}\n    def"), "Odd.presets['a'] is 3; expected"),
    not_offered(
        "preset-key",
        good("    def", "    width: int = 1\n    presets = {'a': {'widht': 3}}\n    def"),
        "Odd.presets['a'] sets 'widht', which is no key; did you mean 'width'?",
    ),
]
PREPARE = "def prepare(self, cache, progress): raise OSError('disk full')"
POST = "def __attrs_post_init__(self): return {}['lost']"
METADATA = "return type('Live', (), {'metadata': property(lambda self: 1 / 0), 'read': print})()"
NO_READ = (
    "return type('Live', (), {'metadata': Metadata(trajectories=1, frames=9, grid=(4,), channels=(), predicted=())})()"
)
BUILDING = [
    *(
        blamed(f"raising-{kind.lower()}", kind, "build raised KeyError: 'lost' (", build="raise KeyError('lost')")
        for kind in KEYS
    ),
    *(blamed(f"nothing-{kind.lower()}", kind, "build returned NoneType; expected ") for kind in KEYS),
    blamed("exiting-dataset", "Dataset", "build raised SystemExit: 0 (", build="raise SystemExit(0)"),
    blamed("number-dataset", "Dataset", "build returned int; expected Trajectories", build="return 3"),
    blamed("raising-metadata", "Dataset", "build raised ZeroDivisionError: division by zero (", build=METADATA),
    blamed(
        "no-read", "Dataset", "build returned Live; expected Trajectories, with 'metadata' and 'read'", build=NO_READ
    ),
    blamed("raising-prepare", "Dataset", "prepare raised OSError: disk full (", method=PREPARE, command="run"),
    blamed(
        "function-backbone",
        "Backbone",
        "build returned function; expected a torch.nn.Module",
        build="return lambda u: u",
    ),
    blamed("without-words", "Backbone", "build raised ValueError (", build="raise ValueError"),
    blamed(
        "number-objective",
        "Objective",
        "build returned int; expected a function of (backbone, batch)",
        build="return 3",
    ),
    blamed(
        "list-sampler", "Sampler", "build returned list; expected a function of (seed, step, size)", build="return []"
    ),
    blamed("no-windows", "Sampler", "its order gave 0 windows of 4", build="return lambda *_: []", command="run"),
    blamed(
        "raising-order", "Sampler", "its order raised ZeroDivisionError", build="return lambda *_: 1 / 0", command="run"
    ),
    blamed(
        "class-optimizer", "Optimizer", "build returned type; expected a torch.optim", build="return torch.optim.Adam"
    ),
    blamed(
        "misspelt-point",
        "Callback",
        "'after_stpe' is no point of training; did you mean 'after_step'?; there are before_training, before_step, ",
        build="return type('Live', (), {'after_stpe': print, 'before_step': print})()",
    ),
    blamed(
        "no-point", "Callback", "build returned Live; expected an object with", build="return type('Live', (), {})()"
    ),
    blamed(
        "half-a-state",
        "Callback",
        "it has one of 'state_dict' and 'load_state_dict'; it needs both, or none",
        build="return type('Live', (), {'after_step': print, 'state_dict': dict})()",
    ),
    blamed(
        "raising-point",
        "Callback",
        "after_step raised ZeroDivisionError: division by zero (",
        build="return type('Live', (), {'after_step': lambda self, training: 1 / 0})()",
        command="run",
    ),
    wrong("raising-init", "Sampler", "sampler: not valid: KeyError: 'lost'", method=POST, command="check"),
    wrong(
        "silent-init",
        "Sampler",
        "sampler: not valid: ValueError",
        method="def __attrs_post_init__(self): raise ValueError",
        command="check",
    ),
    wrong(
        "raising-validator",
        "Sampler",
        "sampler: not valid: ZeroDivisionError: division by zero",
        field="x: int = field(default=0, validator=lambda self, attribute, value: 1 / value)",
        command="check",
    ),
    wrong(
        "mapping",
        "Sampler",
        "sampler.c.a: expected float, got 'x'",
        field="c: dict[str, float] = field(factory=dict)",
        setting="sampler={type='odd', c={a='x'}}",
        command="check",
    ),
    wrong(
        "mapping-number",
        "Sampler",
        "sampler.c: expected a table, got 3",
        field="c: dict[str, float] = field(factory=dict)",
        setting="sampler={type='odd', c=3}",
        command="check",
    ),
    wrong(
        "own-size",
        "Sampler",
        "sampler.size: expected int, got 'big'",
        field="size: int = 3",
        setting="sampler={type='odd', size='big'}",
        command="check",
    ),
    Case(
        name="two-of-one-name",
        arrange=lambda folder: [install(folder, name, good()) for name in ("first-odd", "second-odd")],
        settings=("sampler={type='odd'}",),
        expected=("sampler 'odd' is offered by first-odd", "choose with 'first-odd:odd' or 'second-odd:odd'"),
        leaves=CACHES,
    ),
]
TRAINED = "net = torch.nn.Linear(1, 1)\n        "
RUN = {"command": "run"}
EVALUATED = "evaluation.baselines=['odd']"
RUNNING = [
    blamed(
        "raising-network",
        "Backbone",
        "its network raised ZeroDivisionError: division by zero (",
        build=TRAINED + "net.forward = lambda u, conditions: u / (1 / 0)\n        return net",
        **RUN,
    ),
    blamed(
        "tensor-network",
        "Backbone",
        "its network returned Tensor; expected a Prediction",
        build=TRAINED + "net.forward = lambda u, conditions: net.weight * u[:, -1:]\n        return net",
        **RUN,
    ),
    blamed(
        "torch-s-own-network",
        "Backbone",
        "its network raised TypeError: ",
        build="return torch.nn.Linear(1, 1)",
        **RUN,
    ),
    blamed(
        "raising-loss",
        "Objective",
        "its code raised KeyError: 'lost' (",
        build="return lambda backbone, batch: {}['lost']",
        **RUN,
    ),
    blamed(
        "objective-after-the-network",
        "Objective",
        "its code raised AttributeError: 'Prediction' object has no attribute 'feild' (",
        build="return lambda backbone, batch: backbone(batch.inputs, batch.conditions).feild",
        **RUN,
    ),
    blamed("raising-measure", "Metric", "its function raised KeyError: 'lost' (", build="return lambda *_: {}['lost']"),
    blamed("unnamed-metric", "Metric", "its function returned int; expected a map", build="return lambda *_: 3"),
    blamed(
        "metric-of-real-numbers",
        "Metric",
        "its function raised ZeroDivisionError: division by zero (",
        build="return lambda p, t, *_: {'x': p.mean((1, 2, 3, 4)) / (1 / int(t.min() == 1))}",
        **RUN,
    ),
    blamed(
        "raising-baseline",
        "Backbone",
        "its network raised ZeroDivisionError: division by zero (",
        build="net = torch.nn.Identity()\n        net.forward = lambda u, c: 1 / 0\n        return net",
        setting=EVALUATED,
        **RUN,
    ),
    blamed(
        "short-baseline",
        "Backbone",
        "its network predicted (2, 1, 2, 16, 16); expected (2, 8, 2, 16, 16), as (B, horizon, C, *grid)",
        build="net = torch.nn.Identity()\n        net.forward = lambda u, c: Prediction(field=u[:, -1:])\n"
        "        return net",
        setting=EVALUATED,
        **RUN,
    ),
    wrong(
        "baseline-with-weights",
        "Backbone",
        "evaluation.baselines: 'odd' has weights, which nothing would train; expected backbones without",
        build="return torch.nn.Linear(1, 1)",
        setting=EVALUATED,
    ),
    wrong(
        "baseline-with-a-key",
        "Backbone",
        "evaluation.baselines: 'odd' cannot be used, as it has no default for 'width'",
        field="width: int",
        setting=EVALUATED,
    ),
]
CASES = [*LOADING, *BUILDING, *RUNNING]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_plugin_is_named_with_its_fault(
    case: Case, site: Path, experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complain(case, experiment, capsys)


def test_bad_plugins_all_together_stand_in_nobody_s_way(
    site: Path, experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in LOADING:
        case.arrange(site)
    for words in (["list"], ["show", "dpot"], ["schema"], ["check", str(experiment)]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert words[0] != "list" or all(f"of {case.name}: " in printed for case in LOADING)


def test_whoever_writes_plugins_can_have_the_traceback(
    site: Path, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = blamed("with-traceback", "Dataset", "", build="raise KeyError('lost')")
    case.arrange(site)
    monkeypatch.setenv("OPFRAME_TRACEBACK", "1")
    with pytest.raises(PluginError) as error:
        main(["check", str(experiment), "--set", *case.settings])
    assert isinstance(error.value.__cause__, KeyError)


def test_names_of_cases_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
