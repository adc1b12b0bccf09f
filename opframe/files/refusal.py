"""Remote data that were read and then refused: they are forgotten, and fetched once more before the error is final.

A server that is broken for a while may send bytes of the right length and version that are not those of the file. That
shows only where they are used: a chunk cannot be decoded, a value is not finite. What reads says by `on_refusal` how to
forget it again, what judges reads within `once_more`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from opframe.files.retries import NotFetchedError

_Result = TypeVar("_Result")
_Forget = Callable[[], object]

_READ: ContextVar[list[_Forget] | None] = ContextVar("read", default=None)  # since the outermost `once_more` began


def on_refusal(forget: _Forget) -> None:
    """What is to be done if what has just been read is refused."""
    read = _READ.get()
    if read is not None:
        read.append(forget)


def once_more(action: Callable[[], _Result], right: Callable[[_Result], bool] | None = None) -> _Result:
    """The result of an action that reads and judges what it has read: it raises, or `right` says no, if that is wrong.

    Then what it has read of remote files is forgotten, and it is carried out once more, on fresh bytes. What it gives
    or raises then holds, and nothing is kept of what is wrong again. An action that has read nothing remote, or that no
    server has answered, is not repeated. Within another call of this function it is the outer one that repeats.
    """
    if _READ.get() is not None:
        return action()
    last = False
    while True:
        read: list[_Forget] = []
        token = _READ.set(read)
        try:
            result = action()
            if not read or right is None or right(result):
                return result
            _forget(read)
            if last:
                return result
        except NotFetchedError:
            raise
        except Exception:  # what bytes that are wrong lead to is not foreseen by the packages that decode them
            _forget(read)
            if last or not read:
                raise
        finally:
            _READ.reset(token)
        last = True


def _forget(read: list[_Forget]) -> None:
    for forget in dict.fromkeys(read):  # a file is often read several times
        forget()
