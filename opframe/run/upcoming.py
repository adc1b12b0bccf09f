"""The batches that are still to be trained on."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from opframe_registry import Batch, DataError, PluginError


@define(kw_only=True)
class Upcoming:
    """Gives one batch after another.

    Where several processes train together, `ahead` has each of them read the batch after it as well: so all know a step
    before what is wrong with one of them (`error`), and can save together.
    """

    batches: Iterator[Batch]
    ahead: bool
    error: DataError | PluginError | None = field(default=None, init=False)
    _next: Batch | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)

    def take(self) -> Batch | None:
        """The next batch; None after the last one. Raises what was wrong with it."""
        if not self.ahead:
            return next(self.batches, None)
        if not self._begun:
            self._begun = True
            self._next = next(self.batches, None)
        if self.error is not None:
            raise self.error
        batch, self._next = self._next, None
        if batch is not None:
            self._read_on()
        return batch

    def _read_on(self) -> None:
        try:
            self._next = next(self.batches, None)
        except (DataError, PluginError) as error:
            self.error = error
