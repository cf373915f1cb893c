"""One reading of a Redis address for every client: redis-py, and Celery's broker."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

_VERIFY_WORDS = {
    "cert_required": "required",
    "required": "required",
    "cert_optional": "optional",
    "optional": "optional",
    "cert_none": "none",
    "none": "none",
}
"""Values of `ssl_cert_reqs`: those of redis-py and those of Celery."""

BROKER_PARAMETERS = frozenset(
    {"ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_keyfile_password"}
)
"""Parameters that redis-py and Celery's broker understand in the same way."""


def normalize_redis_address(address: str) -> str:
    """Return the address in the words of redis-py. A rediss:// address states that the certificate is verified.

    Args:
        address: A redis://, rediss:// or unix:// address.

    Raises:
        ValueError: No client can use the address. The text does not contain the address, which may hold a password.
    """
    if re.search(r"[\x00-\x20\x7f]", address):
        raise ValueError("must not contain blanks or control characters")
    if "#" in address:
        raise ValueError("must not contain '#'; write %23")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise ValueError("has no valid host and port; percent-encode special characters of the password") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must start with redis://, rediss:// or unix://")
    if not address.lower().startswith(f"{parts.scheme}://"):
        raise ValueError(f"must start with {parts.scheme}://")
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("has no path of a socket")
    else:
        _check_server(parts.hostname or "", port, unquote(parts.path))
    return urlunsplit(parts._replace(query=urlencode(_parameters(parts.scheme, parts.query))))


def broker_problem(address: str) -> str:
    """Return why a Redis address cannot be Celery's broker as well; empty if it can.

    Args:
        address: A result of `normalize_redis_address`.
    """
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return "must start with redis:// or rediss://, because Celery's broker uses it as well"
    if unknown := sorted(dict(parse_qsl(parts.query, keep_blank_values=True)).keys() - BROKER_PARAMETERS):
        return f"has the parameter {unknown[0]}, which Redis clients and Celery's broker do not read in the same way"
    return ""


def verifies_certificate(address: str) -> bool:
    """Return whether an address makes the client verify the server's certificate, or uses no TLS.

    Args:
        address: A result of `normalize_redis_address`.
    """
    parts = urlsplit(address)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    checks_host = parameters.get("ssl_check_hostname", "true").lower() in ("true", "1", "yes", "y", "on", "t")
    return parts.scheme != "rediss" or (parameters.get("ssl_cert_reqs") == "required" and checks_host)


def _check_server(host: str, port: int | None, path: str) -> None:
    if port == 0:
        raise ValueError("has the port 0")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("has no valid host name") from None
    if not re.fullmatch(r"/?|/[0-9]{1,9}", path):
        raise ValueError("must end with the number of a database, such as /0")


def _parameters(scheme: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise ValueError("has a parameter twice")
    if scheme == "rediss":
        word = parameters.get("ssl_cert_reqs", "required")
        if word.lower() not in _VERIFY_WORDS:
            raise ValueError("has an unknown ssl_cert_reqs; known: required, optional, none")
        parameters["ssl_cert_reqs"] = _VERIFY_WORDS[word.lower()]
    elif tls := sorted(name for name in parameters if name.startswith("ssl_")):
        raise ValueError(f"has the parameter {tls[0]}, but no TLS: it must start with rediss://")
    return parameters
