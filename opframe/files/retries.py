"""Which failures pass, how long to wait for that, and what to say of those that do not."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TypeVar

from attrs import field, frozen
from attrs.validators import ge, gt

from opframe_registry import DataError

_log = logging.getLogger(__name__)
_QUIET = 2  # tries that nobody hears of
_jitter = random.SystemRandom()  # the global generator belongs to the experiment
_Answer = TypeVar("_Answer")

PASSING_STATUS = {408, 429, 500, 502, 503, 504}
"""HTTP statuses of a server that may answer soon."""
# By name, as each is of a package that may not be installed: aiohttp, botocore, httpx, requests, urllib3.
_PASSING = {
    "ConnectionError", "TimeoutError", "Timeout",
    "ClientConnectionError", "ClientPayloadError", "HTTPClientError", "IncompleteReadError",
    "TransportError", "ChunkedEncodingError", "ProtocolError", "WrongAnswerError",
}  # fmt: skip
_STAYING = {"OfflineModeIsEnabled"}  # of huggingface_hub, whose base is ConnectionError
_URL = re.compile(
    r"""(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^/@\s'"]*@)?(?P<place>[^?#\s'"]*)(?P<query>[?#][^\s'"]*)?""", re.IGNORECASE
)


class NotFetchedError(DataError):
    """No server gave what was asked for, or it has changed: nothing is known to be wrong with what was read before."""


class WrongAnswerError(Exception):
    """An answer that is not what was asked for, such as fewer bytes; it may be right the next time."""


def redacted(text: str) -> str:
    """A text whose URLs have lost user, password and query, where credentials and signatures are."""
    return _URL.sub(lambda url: f"{url['scheme']}{url['place']}{'?...' if url['query'] else ''}", text)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, if there is one, in whichever package's words."""
    for cause in _causes(error):
        answer = getattr(cause, "response", None)
        if isinstance(answer, dict):  # botocore
            answer = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        for status in (getattr(cause, "status", None), getattr(answer, "status_code", None), answer):
            if isinstance(status, int):
                return status
    return None


def passes(error: BaseException) -> bool:
    """Whether a failure may be over soon: an overloaded server, a lost connection, too long a wait."""
    status = status_of(error)
    if status is not None:
        return status in PASSING_STATUS
    kinds = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    return bool(kinds & _PASSING) and not kinds & _STAYING


def described(error: BaseException) -> str:
    """What an error says, without credentials."""
    status = status_of(error)
    if status == HTTPStatus.NOT_FOUND or (isinstance(error, FileNotFoundError) and error.__cause__ is None):
        return f"no such file{' (HTTP 404)' if status else ''}"
    if status is not None:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        return f"HTTP {status} {phrase}".rstrip() + ("; are the credentials right?" if status in (401, 403) else "")
    deepest = list(_causes(error))[-1]
    return f"{redacted(str(deepest)) or 'no answer'} ({type(deepest).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _asked_wait(error: BaseException) -> float:
    """The seconds that a server asks to wait, or 0."""
    asked = str(dict(getattr(error, "headers", None) or {}).get("Retry-After", ""))
    return float(asked) if asked.isdecimal() else 0.0


def _of_the_world(error: Exception) -> bool:
    """Whether an error is of the network, the server or the address, and not a mistake in this program."""
    return isinstance(error, (OSError, ValueError, ImportError)) or type(error).__module__ != "builtins"


@frozen(kw_only=True)
class Retries:
    """Tries again after a failure that may pass, waiting twice as long each time, up to `longest` seconds.

    It gives up after so many `attempts`, or where `patience` says how many seconds a server may be away, after these.
    """

    attempts: int = field(default=8, validator=ge(1))
    first: float = field(default=0.5, validator=gt(0))
    longest: float = field(default=30.0, validator=gt(0))
    patience: float = field(default=0.0, validator=ge(0))

    def carry_out(
        self,
        url: str,
        action: Callable[[], _Answer],
        failed: Callable[[], None],
        reached: Callable[[], int] = lambda: 0,
    ) -> _Answer:
        """The result of `action`; `failed` is called after every failure that is tried again.

        `reached` says how far an action has come that goes on where it stopped: its tries count anew from there.
        Raises NotFetchedError with what happened and how often it was tried. The errors of other packages end here:
        they hold the address with its credentials, which a traceback would print.
        """
        place, attempt = redacted(url), 0
        started = away = time.monotonic()
        while True:
            before = reached()
            try:
                result = action()
            except DataError:
                raise
            except Exception as error:  # every filesystem raises errors of its own; mistakes of this program go on
                if not _of_the_world(error):
                    raise
                what, again, asked = described(error), passes(error), _asked_wait(error)
            else:
                if self.patience and attempt > _QUIET:
                    _log.warning("%s: answers again, after %.0f s", place, time.monotonic() - away)
                return result
            if reached() > before:
                attempt, away = 0, time.monotonic()
            else:
                attempt += 1
            gone = time.monotonic() - away
            if not again or (gone >= self.patience if self.patience else attempt == self.attempts):
                break
            failed()
            self._wait(f"{place}: {what}", attempt, asked, self.patience - gone)
        tries = f"; tried {attempt} times in {time.monotonic() - started:.0f} s" if again else ""
        raise NotFetchedError(f"{place}: {what}{tries}")

    def _wait(self, what: str, attempt: int, asked: float, left: float) -> None:
        """Wait for a random time, so that many processes do not come back together, or as the server asks."""
        wait = min(self.first * 2 ** min(attempt - 1, 30), self.longest) * _jitter.uniform(0.5, 1.0)
        wait = max(wait, min(asked, self.longest))
        if self.patience:
            wait = min(wait, max(left, self.first))
        if self.patience and attempt == _QUIET + 1:
            _log.warning("%s; waiting for it for up to %.0f s more", what, left)
        elif wait >= 2.0 and not self.patience:  # what is over sooner nobody needs to know
            _log.warning("%s; trying again in %.0f s", what, wait)
        time.sleep(wait)
