"""The pytest plugin: `pytest --opframe PACKAGE` tries every promise of every component that a package offers.

A test of the package's own with the fixture `opframe_component` gets them one after the other. Pytest loads this module
wherever opframe is installed, so whatever takes time is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from attrs import field, frozen

if TYPE_CHECKING:
    from opframe_registry.testing.cases import Settings
    from opframe_registry.testing.helper import Helper
    from opframe_registry.testing.promise import Case, Trial

_FACTS = "opframe"
"""The name of the properties of a test that hold what was measured."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("opframe", "conformance of plugins of opframe")
    group.addoption(
        "--opframe", action="append", default=[], metavar="PACKAGE", help="try all promises of a package's components"
    )
    group.addoption("--opframe-settings", type=Path, metavar="FILE", help="TOML with settings, as [dataset.NAME]")


def pytest_collection(session: pytest.Session) -> None:
    """With a package, what is given as a path is collected too, but the working directory is not for itself."""
    config = session.config
    if config.getoption("--opframe") and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []


@frozen(kw_only=True, eq=False)
class _Tried:
    """A component that is tried: its case, or why there is none."""

    name: str
    case: Case | None = None
    words: str = ""


@frozen(eq=False)
class _Tries:
    """What is tried in a session: each package's components, made once, with one helping process for all."""

    config: pytest.Config
    helper: Helper
    settings: Settings
    _made: dict[str, list[_Tried]] = field(factory=dict)

    def of(self, package: str) -> list[_Tried]:
        """All components of a package. Raises PluginError where there is none."""
        from opframe_registry.testing.cases import components_of

        if package not in self._made:
            self._made[package] = [self._tried(class_) for class_ in components_of(package)]
        return self._made[package]

    def _tried(self, class_: Any) -> _Tried:
        from opframe_registry.errors import PluginError
        from opframe_registry.testing.cases import folder_name, made, named
        from opframe_registry.testing.promise import Case

        try:
            component = made(class_, self.settings)
        except PluginError as error:
            return _Tried(name=named(class_), words=str(error))
        factory = self.config._tmp_path_factory  # type: ignore[attr-defined]  # pytest has no other way to it
        folder = factory.mktemp(folder_name(class_), numbered=True)
        return _Tried(name=named(class_), case=Case(component=component, folder=folder, helper=self.helper))


_TRIES = pytest.StashKey[_Tries]()


def _tried(config: pytest.Config, packages: list[str]) -> list[_Tried]:
    """All components of some packages. Raises UsageError where there are none, or where settings cannot be read."""
    from opframe_registry.errors import PluginError
    from opframe_registry.testing.cases import read_settings, settings_of
    from opframe_registry.testing.helper import Helper

    try:
        if _TRIES not in config.stash:
            path, helper = config.getoption("--opframe-settings"), Helper()
            settings = read_settings(path) if path else settings_of(config.rootpath)
            config.add_cleanup(helper.close)
            config.stash[_TRIES] = _Tries(config, helper, settings)
        return [tried for package in packages for tried in config.stash[_TRIES].of(package)]
    except PluginError as error:
        raise pytest.UsageError(f"opframe: {error}") from None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> Iterator[None]:
    """Add an item for each promise."""
    for package in session.config.getoption("--opframe"):
        items += _Package.from_parent(session, name=package, nodeid=package).collect()
    session.testscollected = len(items)
    yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `opframe_component` is one test for each component."""
    if "opframe_component" in metafunc.fixturenames:
        tried = _tried(metafunc.config, _packages(metafunc))
        metafunc.parametrize("opframe_component", tried, ids=[each.name for each in tried], indirect=True)


def _packages(metafunc: pytest.Metafunc) -> list[str]:
    """Those of --opframe, else the one in whose folder pytest runs. Raises UsageError where there is neither."""
    from opframe_registry.testing.cases import project_in

    config = metafunc.config
    if given := config.getoption("--opframe"):
        return cast("list[str]", given)
    if own := project_in(config.rootpath):
        return [own]
    raise pytest.UsageError(
        f"{metafunc.definition.nodeid}: whose components are meant is not known: there is no pyproject.toml with a "
        f"project's name in {config.rootpath}; name the package with --opframe PACKAGE"
    )


@pytest.fixture
def opframe_component(request: pytest.FixtureRequest) -> Case:
    """A component of the package with its settings, and a folder of its own; `check()` tries what its kind promises."""
    tried = cast("_Tried", request.param)
    if tried.case is None:
        pytest.fail(tried.words, pytrace=False)
    return tried.case


class _Package(pytest.Collector):
    """All promises of all components of an installed package."""

    def collect(self) -> list[pytest.Item]:
        from opframe_registry.testing.promise import trials

        items: list[pytest.Item] = []
        for tried in _tried(self.config, [self.name]):
            if tried.case is None:
                items.append(_Unmade.from_parent(self, name=f"{tried.name}::it_can_be_made", words=tried.words))
            else:
                own = trials(tried.name, tried.case)
                items += [_Item.from_parent(self, name=str(trial), trial=trial) for trial in own]
        return items


class _Unmade(pytest.Item):
    """A component that needs settings, or that cannot be made with those that it was given."""

    def __init__(self, *, words: str, **given: Any) -> None:
        super().__init__(**given)
        self.words = words

    def runtest(self) -> None:
        pytest.fail(self.words, pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        return self.name, None, self.name


class _Item(pytest.Item):
    """One promise of one component."""

    def __init__(self, *, trial: Trial, **given: Any) -> None:
        super().__init__(**given)
        self.trial = trial

    def runtest(self) -> None:
        from opframe_registry.testing.promise import NotApplicableError

        said = len(self.trial.case.facts)
        try:
            self.trial.check()
        except NotApplicableError as reason:
            pytest.skip(str(reason))
        for fact in self.trial.case.facts[said:]:
            self.add_report_section("call", "facts", fact)
            self.user_properties.append((_FACTS, f"{self.trial.name}: {fact}"))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from opframe_registry.testing.promise import PromiseError

        if isinstance(excinfo.value, PromiseError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        return self.trial.name, None, str(self.trial)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With -v, what was measured of components, such as the cost of a window."""
    if config.get_verbosity() <= 0:
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    said = [value for report in reports for name, value in report.user_properties if name == _FACTS]
    if said:
        terminalreporter.section("facts of opframe's components")
    for fact in said:
        terminalreporter.write_line(str(fact))
