"""Decodes the body of a response: the codings of its headers, and the characters."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Mapping

from notifications.providers.http.lenient_reader import transfer_codings

_GZIP_MAGIC = b"\x1f\x8b\x08"
_CONTROL_CHARACTERS = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_DEFLATE_WITHOUT_HEADER = -zlib.MAX_WBITS
_WINDOW_SIZES = {
    "gzip": (_GZIP_OR_ZLIB,),
    "x-gzip": (_GZIP_OR_ZLIB,),
    "deflate": (_GZIP_OR_ZLIB, _DEFLATE_WITHOUT_HEADER),  # RFC 9110, section 8.4.1.2: some send it without the header
}
MAX_CODINGS = 4
"""Codings that one body may have."""


def decode_body(body: bytes, headers: Mapping[str, str], max_bytes: int) -> bytes | None:
    """Return a body without its codings. We ask for none, but some proxies compress nevertheless.

    Some servers compress without saying so, or name a coding that the body does not have, such as a character set. A
    body that begins as gzip does is decompressed, and a body that is text stays as it is.

    Args:
        body: The body as it was received, without its chunks.
        headers: The headers; names in lower case.
        max_bytes: Bytes to return at most. The rest is cut off.

    Returns:
        The body; a compressed one that was cut off up to where it could be read. None if it has a coding that is not
        known, or that it does not follow.
    """
    content = [part.partition(";")[0].strip().lower() for part in headers.get("content-encoding", "").split(",")]
    codings = [name for name in content if name not in ("", "identity")]
    codings += [name for name in transfer_codings(headers) if name != "chunked"]
    if not codings and body.startswith(_GZIP_MAGIC):
        codings = ["gzip"]
    if len(codings) > MAX_CODINGS:
        return None
    for coding in reversed(codings):
        decoded = _decompress(body, _WINDOW_SIZES.get(coding, ()), max_bytes)
        if decoded is None:
            return body if _is_text(body) else None
        body = decoded
    return body


def decode_text(body: bytes) -> str:
    """Return a body as text: in the UTF that its first bytes show, without byte order mark. Invalid bytes are replaced.

    JSON begins with an ASCII character, so that its encoding is clear without a mark too (RFC 4627, section 3).
    """
    return body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff")


def _decompress(body: bytes, window_sizes: tuple[int, ...], max_bytes: int) -> bytes | None:
    if not body:
        return body
    for size in window_sizes:
        try:
            return _inflate(body, size, max_bytes)
        except zlib.error:
            continue
    return None


def _inflate(body: bytes, window_size: int, max_bytes: int) -> bytes:
    inflated = b""
    while len(inflated) < max_bytes:
        decompressor = zlib.decompressobj(window_size)
        inflated += decompressor.decompress(body, max_bytes - len(inflated))
        body = decompressor.unused_data
        if not body.startswith(_GZIP_MAGIC):  # gzip may have several members (RFC 1952, section 2.2)
            break
    return inflated


def _is_text(body: bytes) -> bool:
    try:
        codecs.utf_8_decode(body, "strict", False)  # the last character may be cut off
    except UnicodeDecodeError:
        return False
    return not _CONTROL_CHARACTERS.search(body)
