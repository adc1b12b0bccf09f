"""Checksums that HTTP servers send along with what they send."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping

from attrs import frozen

_KNOWN = {"sha-512": "sha512", "sha-256": "sha256", "md5": "md5"}  # the strongest first, by their names in headers
_DIGEST = re.compile(r"(sha-512|sha-256|md5)=:?([A-Za-z0-9+/]+=*)")


@frozen(kw_only=True)
class Checksum:
    """What bytes are expected to be: the name of a hash in hashlib, and its value in hexadecimal digits."""

    algorithm: str
    value: str

    def of(self, data: bytes) -> str:
        """The value for these bytes."""
        return hashlib.new(self.algorithm, data).hexdigest()


def sent_along(headers: Mapping[str, str], whole: bool) -> Checksum | None:
    """The checksum of the bytes of an answer, if its headers have one; `whole`: they are those of the whole file.

    What is said of a file does not hold for a part of it, and servers differ in what Content-MD5 means for one.
    """
    if headers.get("Content-Encoding", "identity") != "identity":
        return None
    said = [headers.get("Content-Digest", "")]
    if whole:
        said += [headers.get("Repr-Digest", ""), headers.get("x-goog-hash", "")]
        said += [f"sha-256={headers.get('x-amz-checksum-sha256', '')}", f"md5={headers.get('Content-MD5', '')}"]
    found = {name: value for text in reversed(said) for name, value in _DIGEST.findall(text)}
    for name, algorithm in _KNOWN.items():
        try:
            value = base64.b64decode(found.get(name, ""), validate=True)
        except binascii.Error:
            continue
        if len(value) == hashlib.new(algorithm).digest_size:
            return Checksum(algorithm=algorithm, value=value.hex())
    return None
