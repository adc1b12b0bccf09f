"""The conformance kit: what a component of each kind promises, as functions that raise PromiseError.

`pytest --opframe my_package` tries every promise of every component of a package; `broken_promises` does so without
pytest. The modules named after the kinds hold the promises; they are imported, and torch with them, when a component of
the kind is tried.
"""

from opframe_registry.testing.promise import (
    Case,
    NotApplicableError,
    Promise,
    PromiseError,
    Trial,
    broken_promises,
    promises_of,
    trials,
)

__all__ = [
    "Case",
    "NotApplicableError",
    "Promise",
    "PromiseError",
    "Trial",
    "broken_promises",
    "promises_of",
    "trials",
]
