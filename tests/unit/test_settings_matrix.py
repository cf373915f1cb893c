"""Each setting is taken literally or refused by name, from the environment and from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from notifications.conf import ServiceOptions
from smartmate import telemetry
from tests.support.settings_reader import PRODUCTION, read_settings

pytestmark = pytest.mark.processes

SWITCHES = ("DEBUG", "HTTPS", "BEHIND_PROXY", "DATABASE_POOLED", "CELERY_REMOTE_CONTROL", "REDIS_TLS_VERIFY")
NUMBERS = (
    "DATABASE_TIMEOUT",
    "CONN_MAX_AGE",
    *(
        f"NOTIFICATIONS_{name.upper()}"
        for name, field in ServiceOptions.__dataclass_fields__.items()
        if isinstance(field.default, (int, float))
    ),
)
TEXTS = {
    f"NOTIFICATIONS_{name.upper()}": name.upper()
    for name, field in ServiceOptions.__dataclass_fields__.items()
    if isinstance(field.default, str) and name not in ("redis_url", "trigger_composer")
}
REQUIRED = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "NOTIFICATIONS_ENCRYPTION_KEYS")
PLAIN = ("SECRET_KEY", "SERVER_EMAIL", "DEFAULT_FROM_EMAIL")
CLOSED = ("LANGUAGE_CODE", "TIME_ZONE", "LOG_LEVEL")
ADDRESSES = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "NOTIFICATIONS_REDIS_URL", "EMAIL_URL")
EVERY = sorted({*SWITCHES, *NUMBERS, *TEXTS, *REQUIRED, *PLAIN, *CLOSED, *ADDRESSES})


def expect_refused(environments: dict[str, dict[str, str]]) -> None:
    """Assert that each environment stops the start, with the name of its setting and without its value."""
    for (label, environment), answer in zip(
        environments.items(), read_settings(list(environments.values())), strict=True
    ):
        name = label.split(" ")[0]
        assert isinstance(answer, str), (label, environment, answer if isinstance(answer, list) else "was accepted")
        assert name in answer, (label, answer)
        assert "\n" not in answer, label


def test_a_text_is_taken_literally_also_with_a_dollar_sign(tmp_path: Path) -> None:
    value = "$uperSecret123 $HOME \\$x ${A}"
    names = (*TEXTS, *PLAIN)
    rows = []
    for ending in (None, "", "\n", "\r\n"):
        for name in names:
            path = tmp_path / f"{name}{ending!r}.txt"
            path.write_bytes(f"{value}{ending or ''}".encode())
            rows.append((name, {name: value} if ending is None else {f"{name}_FILE": str(path)}, ending))

    answers = read_settings([environment for _name, environment, _ending in rows])

    for (name, _environment, ending), answer in zip(rows, answers, strict=True):
        assert isinstance(answer, dict), (name, ending, answer)
        got = answer["NOTIFICATIONS"][TEXTS[name]] if name in TEXTS else answer[name]
        assert got == value, (name, ending)


def test_a_metrics_token_with_a_dollar_sign_is_a_token() -> None:
    [answer] = read_settings([{"NOTIFICATIONS_METRICS_TOKEN": "$uperSecret123"}])

    assert answer["NOTIFICATIONS"]["METRICS_TOKEN"] == "$uperSecret123"


def test_a_list_is_taken_literally_also_with_a_dollar_sign(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("$a, b\n")
    names = {"ALLOWED_HOSTS": "", "CSRF_TRUSTED_ORIGINS": "", "NOTIFICATIONS_ALERT_EMAILS": "ALERT_EMAILS"}
    names["NOTIFICATIONS_FEISHU_HOSTS"] = "FEISHU_HOSTS"
    names |= {"NOTIFICATIONS_SANDBOX_ORIGINS": "SANDBOX_ORIGINS", "NOTIFICATIONS_ENCRYPTION_KEYS": "ENCRYPTION_KEYS"}

    answers = read_settings([*({name: "$a, b"} for name in names), *({f"{name}_FILE": str(file)} for name in names)])

    for (name, key), answer in zip([*names.items()] * 2, answers, strict=True):
        assert (answer["NOTIFICATIONS"][key] if key else answer[name]) == ["$a", "b"], name


def test_a_dollar_sign_is_no_number_switch_address_or_known_word() -> None:
    names = (*SWITCHES, *NUMBERS, *CLOSED, *ADDRESSES)

    expect_refused({name: {name: "$OTHER", "OTHER": "1"} for name in names})


def test_a_blank_value_is_literal_or_refused() -> None:
    refused = [name for name in EVERY if name not in TEXTS and name != "NOTIFICATIONS_REDIS_URL"]
    expect_refused({f"{name} {blank!r}": {name: blank} for name in refused for blank in ("", "  ")})

    answers = read_settings([{name: ""} for name in TEXTS])

    for name, answer in zip(TEXTS, answers, strict=True):
        assert answer["NOTIFICATIONS"][TEXTS[name]] == "", name


def test_a_file_that_is_missing_or_blank_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "newline").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    files = ("missing", "empty", "newline", "binary")

    expect_refused({f"{name}_FILE {file}": {f"{name}_FILE": str(tmp_path / file)} for name in EVERY for file in files})


def test_a_second_newline_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("true\n\n")
    names = [name for name in EVERY if name not in ("NOTIFICATIONS_FALLBACK_TEXT", "NOTIFICATIONS_ENCRYPTION_KEYS")]

    expect_refused({name: {f"{name}_FILE": str(tmp_path / "file")} for name in names})


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_takes_a_closed_list_of_words(name: str) -> None:
    wrong = ("enabled", "disabled", "truee", "2", "-1", "t", "f", "None", "null", "1.0", "on off")
    expect_refused({f"{name} {word}": {name: word} for word in wrong})
    seen: dict[str, Callable[[Any], bool]] = {
        "DEBUG": lambda answer: answer["DEBUG"],
        "HTTPS": lambda answer: answer["SECURE_SSL_REDIRECT"],
        "BEHIND_PROXY": lambda answer: answer["SECURE_PROXY_SSL_HEADER"] is not None,
        "DATABASE_POOLED": lambda answer: "DISABLE_SERVER_SIDE_CURSORS" in answer["DATABASES"]["default"],
        "CELERY_REMOTE_CONTROL": lambda answer: answer["CELERY_WORKER_ENABLE_REMOTE_CONTROL"],
        "REDIS_TLS_VERIFY": lambda answer: answer["REDIS_URL"].endswith("ssl_cert_reqs=required"),
    }
    right = {"true": True, "True": True, "1": True, "ON": True, "yes": True, "false": False, "OFF": False, "0": False}
    base = {"REDIS_URL": "rediss://h/0"} if name == "REDIS_TLS_VERIFY" else {}

    for word, answer in zip(right, read_settings([base | {name: word} for word in right]), strict=True):
        assert seen[name](answer) is right[word], word


def test_a_number_that_is_none_is_refused() -> None:
    wrong = ("abc", "5s", "30m", "1_000", "inf", "nan", "1e999", "0x10", "٣", "1,5", "--1", "true", "None")
    expect_refused({f"{name} {value}": {name: value} for name in NUMBERS for value in wrong})
    expect_refused({f"DATABASE_TIMEOUT {value}": {"DATABASE_TIMEOUT": value} for value in ("0", "-1", "99999999")})
    expect_refused({"NOTIFICATIONS_MAX_ATTEMPTS": {"NOTIFICATIONS_MAX_ATTEMPTS": "5.5"}})


def test_a_number_is_taken_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "seven").write_text("7\n")
    rows: list[tuple[dict[str, str], str, Any]] = [
        ({"NOTIFICATIONS_LEASE": "1e3"}, "LEASE", 1000.0),
        ({"NOTIFICATIONS_LEASE": " 90.5 "}, "LEASE", 90.5),
        ({"NOTIFICATIONS_RETENTION_DAYS": "0"}, "RETENTION_DAYS", 0),
        ({"NOTIFICATIONS_MAX_ATTEMPTS_FILE": str(tmp_path / "seven")}, "MAX_ATTEMPTS", 7),
    ]

    for (environment, key, value), answer in zip(rows, read_settings([row[0] for row in rows]), strict=True):
        assert answer["NOTIFICATIONS"][key] == value, environment


def test_a_word_out_of_a_closed_list_is_refused() -> None:
    rows = {"LANGUAGE_CODE": "zh", "TIME_ZONE": "Mars/Olympus", "LOG_LEVEL": "LOUD"}

    expect_refused({name: {name: value} for name, value in rows.items()})


DATABASES = {
    "postgres://u:p@%2Fvar%2Frun%2Fpostgresql/app": ("u", "p", "/var/run/postgresql", "", "app"),
    "postgres://u:p@%2Fvar%2FRun:6432/app": ("u", "p", "/var/Run", 6432, "app"),
    "postgresql://u%40x:p%2Bq+r@h:5432/a%20b+c": ("u@x", "p+q+r", "h", 5432, "a b+c"),
    "postgres://u:$ecret$@h/app": ("u", "$ecret$", "h", "", "app"),
    "postgres://u:p#w@h/app": ("u", "p#w", "h", "", "app"),
    "postgres://u:a/b?c@h/app": ("u", "a/b?c", "h", "", "app"),
    "postgres://u:p@ss@h/app": ("u", "p@ss", "h", "", "app"),
    "postgres://u:p:q@h/app": ("u", "p:q", "h", "", "app"),
    "postgres://u:p@[2001:db8::1]:5433/app": ("u", "p", "2001:db8::1", 5433, "app"),
    "postgres://u:p@h1:5432,h2:5433/app": ("u", "p", "h1,h2", "5432,5433", "app"),
    "postgres://u:p@h1,h2/app": ("u", "p", "h1,h2", "", "app"),
    "postgres://u:p@//var/run/postgresql/app": ("u", "p", "/var/run/postgresql", "", "app"),
    "postgres:///app": ("", "", "", "", "app"),
}


def test_every_part_of_a_database_address_is_decoded_once(tmp_path: Path) -> None:
    for position, address in enumerate(DATABASES):
        (tmp_path / str(position)).write_text(address + "\n")
    files = [{"DATABASE_URL_FILE": str(tmp_path / str(position))} for position in range(len(DATABASES))]

    answers = read_settings([*({"DATABASE_URL": address} for address in DATABASES), *files])

    for (address, parts), answer in zip([*DATABASES.items()] * 2, answers, strict=True):
        assert isinstance(answer, dict), (address, answer)
        config = answer["DATABASES"]["default"]
        assert tuple(config[key] for key in ("USER", "PASSWORD", "HOST", "PORT", "NAME")) == parts, address


def test_a_database_address_keeps_its_parameters() -> None:
    [answer] = read_settings(
        [{"DATABASE_URL": "postgres://h/a?sslmode=require&atomic_requests=true&keepalives_idle=5"}]
    )
    config = answer["DATABASES"]["default"]

    assert config["ATOMIC_REQUESTS"] is True
    assert (config["OPTIONS"]["sslmode"], config["OPTIONS"]["keepalives_idle"]) == ("require", 5)


def test_an_address_that_no_client_can_use_is_refused() -> None:
    wrong = {
        "DATABASE_URL": ("h:5432/app", "sqlite:///x", "mysql://h/a", "postgres://u:p@h:port/a", "postgres://h:0/a",
                         "postgres://h/a?autocommit=maybe", "postgres://h", "postgres://h/a?conn_max_age=5"),
        "REDIS_URL": ("h:6379", "h", "http://h", "redis://h:port/0", "redis://h:99999", "redis://u:p#w@h/0",
                      "redis://h/name", "redis://h/0?db=1", "redis://h/0?socket_timeout=x", "unix:///run/redis.sock",
                      "redis://h/0?ssl_cert_reqs=required", "redis:h", "redis://a..b/0", "redis:///0?db=1&db=2"),
        "NOTIFICATIONS_REDIS_URL": ("h:6379", "redis://h:port/0", "unix://"),
        "CELERY_BROKER_URL": ("h:6379", "redis://h:port/0", "redis://h/0?db=1"),
        "EMAIL_URL": ("h:25", "http://h", "smtp://", "smtp://h:port", "smtp://h/?timeout=5"),
    }  # fmt: skip

    expect_refused({f"{name} {value}": {name: value} for name, values in wrong.items() for value in values})


TLS = {
    "rediss://h/0": "required",
    "rediss://h/0?ssl_cert_reqs=CERT_REQUIRED": "required",
    "rediss://h/0?ssl_cert_reqs=required": "required",
}


def test_both_clients_of_redis_verify_certificates_by_default() -> None:
    answers = read_settings([{"REDIS_URL": address} for address in TLS])

    for address, answer in zip(TLS, answers, strict=True):
        values = (answer["REDIS_URL"], answer["CELERY_BROKER_URL"], answer["NOTIFICATIONS"]["REDIS_URL"])
        assert values == ("rediss://h/0?ssl_cert_reqs=required",) * 3, address


def test_only_a_named_setting_switches_off_the_verification_of_certificates() -> None:
    wrong = ("ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=optional", "ssl_cert_reqs=x")
    names = ("REDIS_URL", "CELERY_BROKER_URL", "NOTIFICATIONS_REDIS_URL")
    extra = (*wrong, "ssl_check_hostname=false")
    expect_refused({f"{name} {query}": {name: f"rediss://h/0?{query}"} for name in names for query in extra})

    [answer] = read_settings([{"REDIS_URL": "rediss://h/0", "REDIS_TLS_VERIFY": "false"}])

    assert {answer["REDIS_URL"], answer["CELERY_BROKER_URL"]} == {"rediss://h/0?ssl_cert_reqs=none"}


def test_the_settings_of_the_matrix_are_valid_alone() -> None:
    [answer] = read_settings([{}])

    assert answer["SECRET_KEY"] == PRODUCTION["SECRET_KEY"]


def test_a_broker_over_amqps_is_verified_with_its_host_name() -> None:
    [amqps, amqp] = read_settings([{"CELERY_BROKER_URL": f"{scheme}://u:$p@h//"} for scheme in ("amqps", "amqp")])

    assert amqps["CELERY_BROKER_URL"] == "amqps://u:$p@h//"
    assert amqps["CELERY_BROKER_USE_SSL"] == {"server_hostname": None}
    assert "CELERY_BROKER_USE_SSL" not in amqp


def test_an_address_of_sentry_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("$OTHER", "sentry.example.com", "https://sentry.example.com/1", "https://key@sentry.example.com"):
        monkeypatch.setenv("SENTRY_DSN", value)

        with pytest.raises(ImproperlyConfigured, match="SENTRY_DSN"):
            telemetry.start()
