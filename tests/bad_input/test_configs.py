"""Configs that cannot be used: every one is answered by words that say what is wrong, and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bad_input_support import BEGUN, Case, complain


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Arrange: a file beside the experiment."""

    def arrange(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return arrange


def setting(name: str, override: str, *expected: str) -> Case:
    """A value that is wrong by itself or beside the others."""
    return Case(name=name, settings=(override,), expected=expected)


def run(name: str, override: str, *expected: str) -> Case:
    """A value that is found wrong when the run begins."""
    words = ("run", "{folder}/experiment.toml")
    return Case(name=name, words=words, settings=(override,), expected=expected, leaves=BEGUN)


def text(name: str, old: str, new: str, *expected: str) -> Case:
    """A line of the file that is wrong."""
    return Case(name=name, replace=((old, new),), expected=expected)


def include(name: str, content: str | bytes, *expected: str) -> Case:
    """A file that the experiment includes."""
    above = ("\n[run]", 'include = "other.toml"\n[run]')
    return Case(name=name, replace=(above,), arrange=write("other.toml", content), expected=expected)


TYPES = [
    setting("text-for-int", "backbone.depth=four", "backbone.depth: expected int, got 'four'"),
    setting("fraction-for-int", "backbone.depth=1.5", "backbone.depth: expected int, got 1.5"),
    setting("bool-for-int", "trainer.steps=true", "trainer.steps: expected int, got True"),
    setting("int-for-bool", "trainer.compile=1", "trainer.compile: expected bool, got 1"),
    setting("text-for-bool", "evaluation.figures='no'", "evaluation.figures: expected bool, got 'no'"),
    setting("text-for-number", "optimizer.learning_rate=fast", "optimizer.learning_rate: expected float, got 'fast'"),
    setting("number-for-text", "title=3", "title: expected str, got 3"),
    setting("number-for-path", "run.folder=3", "run.folder: expected a path or URL, got 3"),
    setting("list-for-number", "data.history=[4]", "data.history: expected int, got [4]"),
    setting("number-for-list", "data.grid=16", "data.grid: expected a list, got 16"),
    setting("text-in-list", 'data.grid=[16, "16"]', "data.grid[1]: expected int, got '16'"),
    setting("number-for-table", "backbone=3", "backbone: expected a table, got 3"),
    setting("list-for-table", "trainer=[1]", "trainer: expected a table, got [1]"),
    setting("number-for-tables", "datasets=3", "datasets: expected a list, got 3"),
    setting("number-among-tables", "datasets=[3]", "datasets[0]: expected a table, got 3"),
    setting("date", "run.seed=2024-01-01", "run.seed: expected int, got datetime.date(2024, 1, 1)"),
    setting("unknown-word", "trainer.device=gpu", "trainer.device: expected one of 'auto', 'cpu', 'cuda', got 'gpu'"),
    setting("list-for-word", "trainer.device=['cpu']", "trainer.device: expected one of 'auto', 'cpu', 'cuda'"),
    setting("one-beta", "optimizer.betas=[0.9]", "optimizer.betas: expected 2 values, got 1"),
    setting("number-for-parts", "init={from='x', components=3}", 'expected list of string or "all", got 3'),
]
RANGES = [
    setting("no-steps", "trainer.steps=0", "trainer: 'steps' must be > 0: 0"),
    setting("steps-below-zero", "trainer.steps=-5", "trainer: 'steps' must be > 0: -5"),
    setting("no-batch", "data.batch_size=0", "data: 'batch_size' must be > 0: 0"),
    setting("no-history", "data.history=0", "data: 'history' must be > 0: 0"),
    setting("no-horizon", "data.horizon=0", "data: 'horizon' must be > 0: 0"),
    setting("no-grid", "data.grid=[]", "data: Length of 'grid' must be >= 1: 0"),
    setting("empty-axis", "data.grid=[16, 0]", "data: 'grid' must be > 0: 0"),
    setting("workers-below-zero", "data.workers=-1", "data: 'workers' must be >= 0: -1"),
    setting("weight-zero", "datasets.one.weight=0", "datasets[0]: 'weight' must be > 0.0: 0.0"),
    setting("weight-nan", "datasets.one.weight=nan", "datasets[0]: 'weight' must be > 0.0: nan"),
    setting("weight-infinite", "datasets.one.weight=inf", "datasets[0]: 'weight' must be < inf: inf"),
    setting("rate-nan", "optimizer.learning_rate=nan", "optimizer: 'learning_rate' must be >= 0.0: nan"),
    setting("rate-infinite", "optimizer.learning_rate=inf", "optimizer: 'learning_rate' must be < inf: inf"),
    setting("rate-below-zero", "optimizer.learning_rate=-1", "optimizer: 'learning_rate' must be >= 0.0: -1.0"),
    setting("seed-below-zero", "run.seed=-1", "run: 'seed' must be >= 0: -1"),
    setting("seed-too-large", "run.seed=99999999999999999999", "run: 'seed' must be < 9223372036854775808"),
    setting("clip-zero", "trainer.clip=0", "trainer: 'clip' must be > 0.0: 0.0"),
    setting("stride-zero", "datasets.one.stride=0", "datasets[0]: 'stride' must be > 0: 0"),
    setting("exclude-below-zero", "datasets.one.exclude=[-1]", "datasets[0]: 'exclude' must be >= 0: -1"),
    setting("train-zero", "datasets.one.train=0", "datasets[0]: 'train' must be > 0: 0"),
]
KEYS = [
    setting("misspelt-key", "run.sed=1", "run: unknown key 'sed'; did you mean 'seed'?"),
    setting("learning-rate-elsewhere", "optimizer.lr=1", "unknown key 'lr'; did you mean 'learning_rate'?"),
    setting("batch-size-elsewhere", "data.bs=1", "data: unknown key 'bs'; did you mean 'batch_size'?"),
    setting("epochs", "trainer.epochs=1", "trainer: unknown key 'epochs'; did you mean 'steps'?"),
    setting("hidden-width", "backbone.hidden_dim=1", "backbone: unknown key 'hidden_dim'; did you mean 'width'?"),
    setting("misspelt-table", "trianer.steps=1", "unknown key 'trianer'; did you mean 'trainer'?"),
    text("no-type", 'type = "dpot"\n', "", "backbone.type: required, but missing; installed backbones: dpot"),
    text("no-steps-key", "steps = 8\n", "", "trainer.steps: required, but missing"),
    text("no-url", 'url = "one.h5"\n', "", "datasets[0].url: required, but missing"),
    text("no-backbone", "[backbone]", "[backbones]", "backbone: required, but missing", "unknown key 'backbones'"),
    Case(name="empty-file", arrange=write("experiment.toml", ""), expected=("datasets: required, but missing",)),
    setting("unknown-backbone", "backbone.type=dpott", "unknown backbone 'dpott'; did you mean 'dpot'?"),
    setting("unknown-distribution", "backbone.type='x:dpot'", "unknown backbone 'x:dpot'"),
    setting("number-for-type", "backbone.type=3", "backbone.type: required, but missing"),
    setting("backbone-as-sampler", "sampler.type=dpot", "unknown sampler 'dpot'"),
    setting("unknown-preset", "backbone.size=tinny", "backbone.size: unknown preset 'tinny'; did you mean 'tiny'?"),
    setting("number-for-preset", "backbone.size=3", "backbone.size: unknown preset 3; presets: "),
    setting("list-for-preset", "backbone.size=[3]", "backbone.size: unknown preset [3]; presets: "),
    setting("label-twice", "datasets.0.label=two", "two datasets are called 'two'; give each its own 'label'"),
    setting("no-datasets", "datasets=[]", "Length of 'datasets' must be >= 1: 0"),
    setting("frozen-with-rate", 'parameters=[{match=["*"], frozen=true, learning_rate=1}]', "parameters[0]: frozen"),
    setting("file-without-place", "files=[{label='one', path='x'}]", "files[0]: set 'url', or 'homepage'"),
    setting("secret", "datasets.0.url=s3://key:hush@bucket/x.h5", "datasets[0].url: the URL holds a password"),
]
OVERRIDES = [
    setting("no-value", "backbone.width", "--set backbone.width: expected key=value"),
    setting("no-key", "=3", "--set =3: expected key=value"),
    setting(
        "index-beyond", "datasets.7.weight=1", "'7' is not an index between 0 and 1, nor one of the labels one, two"
    ),
    setting("index-above-the-line", "datasets.².weight=1", "'²' is not an index between 0 and 1"),
    setting("below-a-value", "run.folder.x=1", "'x' has nothing to be set in"),
    setting("value-nested-too-deep", "data.grid=" + "[" * 5000, "data.grid: expected a list, got '[[["),
]
SYNTAX = [
    text("open-list", "grid = [16, 16]", "grid = [16, 16", "not valid TOML"),
    text("key-twice", "history = 4", "history = 4\nhistory = 5", "not valid TOML", "line 7"),
    text("open-text", 'folder = "run"', 'folder = "run', "experiment.toml: not valid TOML", "line 3"),
    text("table-twice", "[sampler]", "[data]\n[sampler]", "not valid TOML"),
    text("yaml", "[data]", "data:", "not valid TOML"),
    Case(
        name="nested-too-deep",
        arrange=write("experiment.toml", "x = " + "[" * 100_000),
        expected=("experiment.toml: not valid TOML",),
    ),
    Case(name="binary", arrange=write("experiment.toml", bytes(range(256))), expected=("it is no text in UTF-8",)),
    Case(name="huge", arrange=write("experiment.toml", b"#" * (2**24 + 1)), expected=("more than 16 MiB",)),
    Case(name="data-for-config", words=("check", "{folder}/one.h5"), expected=("one.h5: not valid TOML",)),
    Case(name="folder-for-config", words=("check", "{folder}"), expected=("{folder}: cannot be read", "directory")),
    Case(name="no-config", words=("check", "{folder}/none.toml"), expected=("none.toml: no such file",)),
    Case(name="name-with-zero", words=("check", "{folder}/\0.toml"), expected=("cannot be read (embedded null byte)",)),
]
INCLUDES = [
    include("cyclic", 'include = "experiment.toml"', "experiment.toml: includes itself, by way of {folder}/other.toml"),
    include("includes-itself", 'include = "other.toml"', "other.toml: includes itself"),
    include("includes-missing", 'include = "none.toml"', "none.toml: no such file, included by {folder}/other.toml"),
    include("includes-folder", 'include = "."', "cannot be read", "included by {folder}/other.toml"),
    include("includes-number", "include = 3", "other.toml: include: expected a file name or a list of them, got 3"),
    include("includes-numbers", "include = [3]", "other.toml: include: expected a file name or a list of them"),
    include("binary-include", b"\x89HDF\r\n", "other.toml: not valid TOML", "included by {folder}/experiment"),
    include("broken-include", "x = ", "other.toml: not valid TOML", "included by {folder}/experiment.toml"),
    include("zero-in-name", 'include = "\\u0000"', "cannot be read (embedded null byte)"),
    Case(
        name="label-not-included",
        arrange=write("above.toml", 'include = "experiment.toml"\n[datasets]\nthree.weight = 2\n'),
        words=("check", "{folder}/above.toml"),
        expected=("above.toml: datasets.three: expected a label out of one, two",),
    ),
    Case(
        name="label-of-included-is-a-number",
        arrange=write("above.toml", 'include = "experiment.toml"\n[datasets]\none = 2\n'),
        words=("check", "{folder}/above.toml"),
        expected=("datasets[0]: expected a table, got 2",),
    ),
    Case(
        name="type-changed-to-a-number",
        arrange=write("above.toml", 'include = "experiment.toml"\n[backbone]\ntype = 2\n'),
        words=("check", "{folder}/above.toml"),
        expected=("backbone.type: required, but missing",),
    ),
]
ENVIRONMENT = [
    setting("variable", "datasets.0.url=${NOWHERE_TO_BE_FOUND}/x", "the environment variable NOWHERE_TO_BE_FOUND is"),
    text("variable-in-file", '"one.h5"', '"${NOWHERE_TO_BE_FOUND}"', "datasets[0].url: the environment variable"),
]
TOGETHER = [
    setting("patch", "backbone.patch=3", "patch = 3 does not divide the grid 16×16"),
    setting("heads", "backbone.heads=3", "heads"),
    setting("grid-of-one-axis", "data.grid=[16]", "data.grid: [16] has 1 axis, but one is given on the grid [16, 16]"),
    setting("grid-of-four-axes", "data.grid=[4, 4, 4, 4]", "data.grid: [4, 4, 4, 4] has 4 axes, but one is given on"),
    setting("too-few-channels", "data.channels=1", "data.channels = 1, but two has 2 channels: c0, c1"),
    setting("history-too-long", "data.history=40", "one: trajectories have 12 frames, but a window takes 41"),
    setting("too-many-frames", "objective.frames=40", "one: trajectories have 12 frames, but a window takes 44"),
    setting("stride-too-long", "datasets.one.stride=11", "one: trajectories have 2 frames, but a window takes 5"),
    setting("rollout-too-long", "datasets.one.rollout=40", "one: rollout = 40 after 4 frames of history takes 44"),
    setting("exclude-unknown", "datasets.one.exclude=[9]", "one: exclude names trajectory 9, but they are numbered 0"),
    setting("exclude-all", "datasets.one.exclude=[0,1,2,3]", "one: exclude names all 4 trajectories"),
    setting("test-takes-all", "datasets.one.test=6", "one: test = 6 leaves nothing for training"),
    setting("train-overlaps", "datasets.one.train=5", "one: train = 5 and test = 2 overlap"),
    setting("resize-average", 'data={grid=[12,12],history=4,resize="average"}', "one"),
    setting("no-such-weights", "init={from='nothing_here'}", "nothing_here"),
    setting("group-of-nothing", 'parameters=[{match=["no.such.*"], frozen=true}]', "no.such.*"),
    setting("everything-frozen", 'parameters=[{match=["*"], frozen=true}]', "frozen"),
]
EVALUATION = [
    setting("no-metric", "metrics=[]", "Length of 'metrics' must be >= 1: 0"),
    setting("misspelt-metric", "metrics=[{type='rsme'}]", "metrics[0]: unknown metric 'rsme'; did you mean 'rmse'?"),
    setting(
        "metric-twice",
        "metrics=[{type='rmse'}, {type='rmse'}]",
        "metrics: 'rmse' and 'rmse' both measure 'rmse'; leave one of them out",
    ),
    setting(
        "misspelt-baseline",
        "evaluation.baselines=['persistance']",
        "evaluation.baselines: unknown backbone 'persistance'; did you mean 'persistence'?",
    ),
    setting(
        "baseline-that-does-not-fit", "evaluation.baselines=['fno']", "evaluation.baselines: 'fno' cannot be used ("
    ),
    setting("baseline-twice", "evaluation.baselines=['linear', 'linear']", "baselines names 'linear' twice"),
    setting("baseline-model", "evaluation.baselines=['model']", "baselines names 'model', which is what the trained"),
    setting(
        "baseline-with-weights",
        "evaluation.baselines=['unet']",
        "evaluation.baselines: 'unet' has weights, which nothing would train; expected backbones without",
    ),
    setting(
        "nothing-to-train",
        "backbone.type=persistence",
        "[backbone] persistence has no weights to train; name it in evaluation.baselines instead",
    ),
]
RUNS = [
    run("test-too-many", "datasets.one.test=9", "one: test = 9, but {folder}/one.h5 holds 6 trajectories"),
    run("unknown-protocol", "datasets.0.url=nowhere://x.h5", "nowhere://x.h5: Protocol not known: nowhere"),
    run("missing-file", "datasets.0.url=none.h5", "none.h5: no such file"),
    run("rate-far-too-large", "optimizer.learning_rate=1e30", "training diverged by step", "optimizer.learning_rate"),
    run("batch-not-shared", "trainer.accumulate=5", "data.batch_size = 4 cannot be shared by 1 process x 5"),
]
COMMANDS = [
    Case(name="no-command", words=("rnu",), expected=("did you mean 'run'?",)),
    Case(name="no-processes", words=("run", "x", "--nproc", "0"), expected=("not a whole number of 1 or more",)),
    Case(
        name="stop-before-begin",
        words=("run", "x", "--stop-at", "0"),
        expected=("0 is not a whole number of 1 or more",),
    ),
    Case(name="no-run-to-compare", words=("compare", "{folder}"), expected=("{folder} is not a finished run",)),
    Case(
        name="unknown-component", words=("show", "dpott"), expected=("unknown component 'dpott'; did you mean 'dpot'",)
    ),
    Case(
        name="nothing-to-evaluate",
        words=("evaluate", "{folder}/experiment.toml"),
        expected=("there are no weights to evaluate; name a weights folder or a run folder as init.from",),
    ),
]
CASES = [*TYPES, *RANGES, *KEYS, *OVERRIDES, *SYNTAX, *INCLUDES, *ENVIRONMENT, *TOGETHER, *EVALUATION, *RUNS, *COMMANDS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_config_is_explained(case: Case, experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    complain(case, experiment, capsys)


def test_names_of_cases_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
