"""The pytest plugin: `pytest --opframe PACKAGE` tries every promise of every component that a package offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from opframe_registry.testing.promise import Trial


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


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> Iterator[None]:
    """Add an item for each promise."""
    for package in session.config.getoption("--opframe"):
        items += _Package.from_parent(session, name=package, nodeid=package).collect()
    session.testscollected = len(items)
    yield


class _Package(pytest.Collector):
    """All promises of all components of an installed package."""

    def collect(self) -> list[pytest.Item]:
        from opframe_registry.errors import PluginError
        from opframe_registry.testing.cases import components_of, made, read_settings
        from opframe_registry.testing.helper import Helper
        from opframe_registry.testing.promise import Case, trials

        path, helper = self.config.getoption("--opframe-settings"), Helper()
        self.session.config.add_cleanup(helper.close)
        items: list[pytest.Item] = []
        try:
            settings = read_settings(path) if path else {}
            for class_ in components_of(self.name):
                factory = self.config._tmp_path_factory  # type: ignore[attr-defined]  # pytest has no other way to it
                folder = factory.mktemp(f"{class_.kind}_{class_.name}", numbered=True)
                name = f"{class_.name}[{class_.kind}]"
                try:
                    component = made(class_, settings)
                except PluginError as error:
                    items.append(_Unmade.from_parent(self, name=f"{name}::it_can_be_made", words=str(error)))
                    continue
                case = Case(component=component, folder=folder, helper=helper)
                items += [_Item.from_parent(self, name=str(trial), trial=trial) for trial in trials(name, case)]
        except PluginError as error:
            raise pytest.UsageError(str(error)) from None
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
            self.user_properties.append(("opframe", fact))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from opframe_registry.testing.promise import PromiseError

        if isinstance(excinfo.value, PromiseError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        return self.trial.name, None, str(self.trial)
