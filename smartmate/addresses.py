"""Reads the addresses of servers from the environment: PostgreSQL, Redis, the broker, the mail server."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from notifications.conf.redis_address import broker_problem, normalize_redis_address, verifies_certificate
from smartmate.env import parse_switch, read, refused, secret, switch, text

_POSTGRES_SCHEMES = ("postgres", "postgresql", "psql", "pgsql")
_DJANGO_SWITCHES = ("ATOMIC_REQUESTS", "AUTOCOMMIT", "CONN_HEALTH_CHECKS", "DISABLE_SERVER_SIDE_CURSORS")
_MAIL_SERVERS = ("smtp", "smtps", "smtp+tls", "smtp+ssl")


def database(name: str, **options: Any) -> dict[str, Any]:
    """Return an entry of Django's DATABASES.

    Every part of the address is percent-decoded, as libpq does. A plus sign stays a plus sign.

    Args:
        name: The variable with the postgres:// address.
        options: Added to the entry's OPTIONS, unless the address has them.

    Raises:
        ImproperlyConfigured: The variable is not set, or the address is of another kind.
    """
    parts = _split(name, secret(name))
    if parts.scheme not in _POSTGRES_SCHEMES:
        raise refused(name, "must be a postgres:// address: the claim works only in PostgreSQL")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    pairs = [_host_and_port(name, host) for host in hosts.split(",")]
    config: dict[str, Any] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.removeprefix("/")),
        "USER": unquote(user),
        "PASSWORD": unquote(password),
        "HOST": ",".join(host for host, _port in pairs),
        "PORT": _join_ports([port for _host, port in pairs]),
        "OPTIONS": {},
    }
    if config["NAME"].startswith("/"):  # the older form: postgres://user:password@//var/run/postgresql/name
        config["HOST"], config["NAME"] = config["NAME"].rsplit("/", 1)
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key.upper() in _DJANGO_SWITCHES:
            config[key.upper()] = parse_switch(f"{name}: {key}", value)
        elif key.upper() == "CONN_MAX_AGE":
            raise refused(name, "must not have the parameter conn_max_age. Set CONN_MAX_AGE for that")
        else:
            config["OPTIONS"][key] = int(value) if value.isascii() and value.isdigit() else value
    if not config["NAME"] and "service" not in config["OPTIONS"]:
        raise refused(name, "has no name of a database")
    config["OPTIONS"] = options | config["OPTIONS"]
    return config


def _split(name: str, address: str) -> SplitResult:
    """Split an address. Special characters of a password may be written as they are, as far as that is unambiguous."""
    address = address.replace("#", "%23")
    scheme, separator, rest = address.partition("://")
    try:
        parts = urlsplit(address)
        if separator and "@" in rest and "@" not in parts.netloc:
            userinfo, _, server = rest.rpartition("@")
            parts = urlsplit(f"{scheme}://{quote(userinfo, safe=':%@')}@{server}")
    except ValueError:
        raise refused(name, "is no valid address; percent-encode special characters of the password") from None
    return parts


def _host_and_port(name: str, host: str) -> tuple[str, str]:
    if host.startswith("["):  # IPv6
        host, _separator, port = host[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _separator, port = host.rpartition(":") if ":" in host else (host, "", "")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise refused(name, "has no valid port; percent-encode special characters of the password")
    return unquote(host), port


def _join_ports(ports: list[str]) -> int | str:
    if len(ports) == 1:
        return int(ports[0]) if ports[0] else ""
    return ",".join(ports) if any(ports) else ""


def redis_address(name: str, default: str | None = None) -> str:
    """Return a Redis address that our client reads.

    Args:
        name: The variable.
        default: The address where the variable is not set. Without one, the variable is required.

    Raises:
        ImproperlyConfigured: No client can use the address, or it switches off the verification of certificates.
    """
    value = secret(name) if default is None else read(name)
    return default or "" if value is None else _normalized(name, value) if value.strip() else ""


def broker_address(name: str, default_name: str) -> str:
    """Return the address of Celery's broker. A Redis address means the same as to our client.

    Args:
        name: The variable.
        default_name: The variable that is read where that one is not set.

    Raises:
        ImproperlyConfigured: It is no address, or our client and Celery would read it differently.
    """
    if read(name) is None:
        name = default_name
    value = secret(name)
    scheme, separator, _rest = value.partition("://")
    if not separator or not scheme:
        raise refused(name, "must be an address such as redis://host:6379/0 or amqp://user:password@host")
    if scheme.lower() not in ("redis", "rediss", "unix"):
        return value
    address = _normalized(name, value)
    if problem := broker_problem(address):
        raise refused(name, problem)
    return address


def _normalized(name: str, value: str) -> str:
    try:
        address = normalize_redis_address(value)
    except ValueError as error:
        raise refused(name, str(error)) from None
    if switch("REDIS_TLS_VERIFY", default=True):
        if not verifies_certificate(address):
            raise refused(name, "switches off the verification of certificates. Set REDIS_TLS_VERIFY=false for that")
        return address
    return address.replace("ssl_cert_reqs=required", "ssl_cert_reqs=none")


def mail_server(name: str, default: str) -> dict[str, Any]:
    """Return Django's EMAIL_* settings of an address.

    Raises:
        ImproperlyConfigured: The address is of no known kind, or has a part that would be ignored.
    """
    parts = _split(name, text(name, default))
    try:
        config: dict[str, Any] = environ.Env.email_url_config(parts.geturl())
    except (ImproperlyConfigured, ValueError):
        raise refused(name, "must be an address such as smtp+tls://user:password@host:587") from None
    if parts.scheme in _MAIL_SERVERS and not parts.hostname:
        raise refused(name, "has no host")
    if parts.query:
        raise refused(name, "must not have parameters; the scheme selects TLS: smtp+tls:// or smtp+ssl://")
    return config
