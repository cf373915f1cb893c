"""Fault 33: whatever fails, the key of a webhook and its token are found nowhere."""

from __future__ import annotations

import base64
import copy
import dataclasses
import html
import io
import json
import logging
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from celery import current_app
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.utils.log import AdminEmailHandler
from pytest_django import Settings

from dev.other_app import other_app
from notifications.conf import service_options
from notifications.delivery import settle
from notifications.delivery.claim import Claimed, claim
from notifications.delivery.engine import Engine
from notifications.delivery.settlement import build_settlement
from notifications.models import NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.providers.base import attempt_send
from notifications.providers.feishu.flow import FeishuFlowProvider
from notifications.security.secrets import Secret, SecretUnreadable
from notifications.service import NotificationService
from notifications.tasks import FEISHU_REQUESTED, handle_feishu_requested
from notifications.testing.sandbox.server import Sandbox
from tests.support.canaries import ADDRESS, CORES, KEY, PATH, TOKEN, Trail, found_in, leaks, redis_keys, watched_logs
from tests.support.environment import running_environment
from tests.support.payloads import payload, payload_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db

API = "/api/channels/feishu"
CHANNELS = "/admin/notifications/usernotificationchannel/"
WORDS = [
    *("ok", "hold", "reset", "garbage", "huge", "drip", "drip-body", "redirect", "empty", "slow:9", "rate-limit:1"),
    *(
        "code:2200",
        "code:9499",
        "code:11232",
        "code:19001",
        "code:424242:odd",
        "status:400",
        "status:401",
        "status:404",
    ),
    *("status:429", "status:500", "status:503", "echo", "echo:19001", "echo:424242", "echo:11232"),
]
Nowhere = Callable[..., None]


@pytest.fixture
def sandbox(change: Callable[..., None]) -> Iterator[Sandbox]:
    """The receiver, and bounds that end every kind of silence soon."""
    with Sandbox() as sandbox:
        change(
            SANDBOX_ORIGINS=[sandbox.origin, "http://127.0.0.1:1", sandbox.origin.replace("http:", "https:")],
            TOTAL_TIMEOUT=0.6,
            READ_TIMEOUT=0.5,
            CONNECT_TIMEOUT=0.5,
        )
        yield sandbox


@pytest.fixture
def trail() -> Iterator[Trail]:
    with watched_logs() as trail:
        yield trail


@pytest.fixture
def nowhere(trail: Trail, admin_client: Client, redis_client: redis.Redis) -> Nowhere:
    """Return a function that looks for the canaries everywhere, and in texts given to it."""

    def look(**texts: object) -> None:
        assert trail.raw.getvalue(), "nothing was logged: the search cannot fail"
        assert leaks(trail, admin_client, redis_client, **texts) == {}

    return look


@pytest.fixture
def channel(make_user: Callable[..., User]) -> Callable[[str], UserNotificationChannel]:
    """Return a function that stores a channel with this address and the canary token."""

    def store(url: str) -> UserNotificationChannel:
        return UserNotificationChannel.objects.create(
            user=make_user(), webhook_url=url, auth_type="bearer", bearer_token=TOKEN
        )

    return store


Store = Callable[[str], UserNotificationChannel]


def deliver(channel: UserNotificationChannel) -> NotificationRecord:
    """Have one event handled, by Celery's own task, and return its record."""
    done = handle_feishu_requested(payload(user_id=channel.user_id))
    assert found_in(repr(done)) == []
    return NotificationRecord.objects.get()


class TestControl:
    """A search that cannot fail proves nothing."""

    @pytest.mark.parametrize("text", [ADDRESS, f"Bearer {TOKEN}", KEY.lower()])
    def test_a_canary_in_a_text_is_found(self, text: str) -> None:
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
        forms = [text, text.encode(), json.dumps([text]), html.escape(text), quote(text), escaped, json.dumps(escaped)]
        forms += [base64.b64encode(b"{" * n + text.encode() + b"}") for n in range(3) if text != KEY.lower()]

        assert [form for form in forms if not found_in(form)] == []
        assert found_in("sk/canary...f60a1 ********") == []

    def test_a_canary_is_found_in_every_place(
        self, trail: Trail, admin_client: Client, redis_client: redis.Redis, channel: Store
    ) -> None:
        stored = channel("")
        UserNotificationChannel.objects.update(last_test_error=f"cannot reach {ADDRESS}")
        logging.getLogger("notifications.x").warning("cannot reach %s", ADDRESS)
        logging.getLogger("other").debug("with %s", TOKEN)
        redis_client.set("smartmate:planted", f"{TOKEN} {TOKEN}")
        with current_app.connection_for_write() as broker:
            current_app.send_task(FEISHU_REQUESTED, args=[{"x": ADDRESS}], queue="notifications", connection=broker)

        found = leaks(trail, admin_client, redis_client)

        redis_client.delete("notifications")
        for place in (
            *("logs", "table user_notification_channels", "redis b'smartmate:planted'", "redis b'notifications'"),
            f"page {CHANNELS}{stored.pk}/change/",
        ):
            assert found.get(place), place
        assert [core in trail.raw.getvalue() for core in CORES] == [True, False]
        assert [core in trail.written.getvalue() for core in CORES] == [False, True]


class TestAnswers:
    @pytest.mark.parametrize("word", WORDS)
    def test_fault_33_secret_leak_answer(self, word: str, sandbox: Sandbox, channel: Store, nowhere: Nowhere) -> None:
        sandbox.script(KEY, word)

        record = deliver(channel(sandbox.origin + PATH))

        [arrived] = sandbox.deliveries(key=KEY)
        assert arrived.headers["Authorization"] == f"Bearer {TOKEN}", "the canary was not sent: nothing can leak"
        nowhere(record=vars(record))

    def test_fault_33_secret_leak_what_one_endpoint_sets_is_not_sent_to_the_next(
        self, sandbox: Sandbox, channel: Store, nowhere: Nowhere
    ) -> None:
        sandbox.script(KEY, "echo:424242", "ok")
        deliver(channel(sandbox.origin + PATH))
        NotificationRecord.objects.update(next_attempt_at="2026-01-01T00:00Z")

        Engine().deliver_due()

        first, second = sandbox.deliveries(key=KEY)
        assert first.headers.keys() == second.headers.keys()
        nowhere()

    def test_an_echo_is_judged_before_it_is_blacked_out(self, sandbox: Sandbox, channel: Store) -> None:
        stored = channel(sandbox.origin + PATH)
        UserNotificationChannel.objects.update(bearer_token="code")
        sandbox.script(KEY, "echo:19001")

        assert deliver(stored).last_error_code == "provider_config"


class TestNoAnswer:
    def test_fault_33_secret_leak_refused_connection(self, sandbox: Sandbox, channel: Store, nowhere: Nowhere) -> None:
        record = deliver(channel(f"http://127.0.0.1:1{PATH}"))

        assert record.last_error_code == "network_error"
        nowhere()

    def test_fault_33_secret_leak_tls_failure(self, sandbox: Sandbox, channel: Store, nowhere: Nowhere) -> None:
        record = deliver(channel(sandbox.origin.replace("http:", "https:") + PATH))

        assert record.last_error == "TLS failed"
        nowhere()

    @pytest.mark.parametrize("address", ["", "127.0.0.1", "::ffff:10.0.0.1"])
    def test_fault_33_secret_leak_name_that_leads_nowhere_or_inside(
        self, address: str, channel: Store, nowhere: Nowhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = socket.getaddrinfo

        def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "www.feishu.cn":
                return real(host, port, *args, **kwargs)
            if not address:
                raise socket.gaierror(socket.EAI_NONAME, f"no such name: {ADDRESS}")
            return real(address, port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

        record = deliver(channel(ADDRESS))

        assert record.last_error_code == "network_error"
        nowhere()

    @pytest.mark.parametrize(
        "url", [f"https://evil.example{PATH}", f"https://{TOKEN}@www.feishu.cn{PATH}", f"gopher:{PATH}\n", "\0" + KEY]
    )
    def test_fault_33_secret_leak_address_refused_by_the_rules(
        self, url: str, channel: Store, nowhere: Nowhere
    ) -> None:
        record = deliver(channel(url))

        assert record.last_error_code == "invalid_url"
        nowhere()

    def test_fault_33_secret_leak_token_that_is_no_header(
        self, sandbox: Sandbox, channel: Store, nowhere: Nowhere
    ) -> None:
        stored = channel(sandbox.origin + PATH)
        UserNotificationChannel.objects.update(bearer_token=f"{TOKEN}\r\nX-Evil: 1")

        record = deliver(stored)

        assert record.last_error_code == "network_error"
        nowhere()

    @pytest.mark.parametrize("keys", [[Fernet.generate_key().decode()], [], ["no key"]])
    def test_fault_33_secret_leak_unreadable_ciphertext(
        self, keys: list[str], channel: Store, nowhere: Nowhere, change: Callable[..., None]
    ) -> None:
        stored = channel(ADDRESS)
        change(ENCRYPTION_KEYS=keys)

        record = deliver(stored)

        assert (record.status, record.last_error_code) == ("failed", "provider_config")
        nowhere()


class TestDatabase:
    @pytest.mark.django_db(transaction=True)  # PostgreSQL refuses Talkative's result, and with it a transaction
    @pytest.mark.parametrize("provider", ["Indiscreet", "Talkative"])
    def test_fault_33_secret_leak_provider_that_raises_with_the_address(
        self, provider: str, channel: Store, nowhere: Nowhere, trail: Trail, change: Callable[..., None]
    ) -> None:
        change(PROVIDERS={"feishu": f"tests.support.canaries.{provider}"})

        record = deliver(channel(ADDRESS))

        assert record.status == "failed"
        assert record.last_error
        assert ("cannot be stored whole" in trail.raw.getvalue()) == (provider == "Talkative")
        nowhere()

    def test_fault_33_secret_leak_database_that_fails_while_settling(
        self, sandbox: Sandbox, channel: Store, nowhere: Nowhere, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed: list[str] = []

        settle_batch = settle.settle_batch

        def fail_once(*args: Any) -> set[int]:
            if failed:
                return settle_batch(*args)
            failed.append("once")
            raise OperationalError(f"server closed the connection: {ADDRESS} {TOKEN}")

        monkeypatch.setattr(settle, "settle_batch", fail_once)
        monkeypatch.setattr(
            "notifications.delivery.settle.connection.close", lambda: None
        )  # it holds the test's transaction
        sandbox.script(KEY, "echo:19001")

        deliver(channel(sandbox.origin + PATH))

        assert failed
        nowhere()

    def test_fault_33_secret_leak_dumpdata(self, channel: Store) -> None:
        channel(ADDRESS)
        out = io.StringIO()

        call_command("dumpdata", stdout=out)

        assert "usernotificationchannel" in out.getvalue()
        assert found_in(out.getvalue()) == []


class TestWaysIn:
    def test_fault_33_secret_leak_rejected_event(self, nowhere: Nowhere) -> None:
        wrong = payload(user_id=0, webhook_url=ADDRESS, bearer_token=TOKEN, trace_id=f"Bearer {TOKEN}") | {ADDRESS: 1}

        handle_feishu_requested(wrong)
        handle_feishu_requested(payload(), f"see {ADDRESS}")

        assert RejectedRequest.objects.count() == 2
        nowhere()

    @pytest.mark.parametrize(
        "fields",
        [
            {"new_webhook_url": f"http://evil.example{PATH}", "new_bearer_token": TOKEN},
            {"new_webhook_url": ADDRESS, "new_bearer_token": f"{TOKEN} two"},
            {"new_webhook_url": ADDRESS + "?" * 3000, "new_bearer_token": TOKEN * 100},
            {"new_webhook_url": ADDRESS, "new_bearer_token": TOKEN, "clear_token": "on"},
            {"new_webhook_url": ADDRESS, "new_bearer_token": TOKEN, "auth_type": "nonsense"},
            {"new_webhook_url": ADDRESS, "new_bearer_token": TOKEN},
        ],
    )
    def test_fault_33_secret_leak_admin_form(
        self, fields: dict[str, str], channel: Store, admin_client: Client, trail: Trail, redis_client: redis.Redis
    ) -> None:
        stored = channel(ADDRESS)

        changed = admin_client.post(f"{CHANNELS}{stored.pk}/change/", {"auth_type": "none"} | fields)
        added = admin_client.post(f"{CHANNELS}add/", {"auth_type": "none", "user": 0, "channel": "x"} | fields)

        answers = {"changed": changed.content.decode(), "added": added.content.decode()}
        assert added.status_code == 200, "the form of an unknown user was accepted"
        assert leaks(trail, admin_client, redis_client, **answers) == {}

    @pytest.mark.parametrize(
        "fields",
        [
            {"webhook_url": f"http://evil.example{PATH}", "bearer_token": TOKEN},
            {"webhook_url": ADDRESS, "bearer_token": f"{TOKEN} two"},
            {"webhook_url": ADDRESS + "?" * 3000, "bearer_token": TOKEN * 100},
            {"webhook_url": [ADDRESS], "bearer_token": {TOKEN: TOKEN}},
            {"webhook_url": ADDRESS, "bearer_token": TOKEN, "auth_type": TOKEN, "enabled": ADDRESS},
            {"webhook_url": ADDRESS, "bearer_token": TOKEN},
        ],
    )
    def test_fault_33_secret_leak_http_api(
        self, fields: dict[str, Any], channel: Store, client: Client, nowhere: Nowhere
    ) -> None:
        stored = channel(ADDRESS)
        UserNotificationChannel.objects.update(last_test_error="code 1: x", pause_reason="x")
        client.force_login(stored.user)

        answers = [
            client.put(API, fields, content_type="application/json"),
            client.put(API, json.dumps(fields)[:-1], content_type="application/json"),
            client.put(API, fields | {"x": TOKEN}, content_type="application/json"),
            *(client.get(API), client.get("/api/notifications"), client.delete(API)),
        ]

        nowhere(**{str(number): answer.content.decode() for number, answer in enumerate(answers)})

    @pytest.mark.parametrize("column", ["last_test_error", "pause_reason"])
    def test_fault_33_secret_leak_http_api_of_a_text_that_quotes_the_address(
        self, column: str, channel: Store, client: Client
    ) -> None:
        client.force_login(channel(ADDRESS).user)
        UserNotificationChannel.objects.update(**{column: f"cannot reach {ADDRESS}"})

        answer = client.get(API)

        assert "cannot reach" in answer.json()[column]
        assert found_in(answer.content) == []

    @pytest.mark.parametrize("word", ["ok", "echo:19001", "echo:424242", "status:500", "reset", "drip"])
    def test_fault_33_secret_leak_http_api_test_message(
        self, word: str, sandbox: Sandbox, channel: Store, client: Client, nowhere: Nowhere
    ) -> None:
        client.force_login(channel(sandbox.origin + PATH).user)
        sandbox.script(KEY, word)

        answers = [client.post(f"{API}/test"), client.get(API), client.get("/api/notifications")]

        assert {answer.status_code for answer in answers} == {200}
        assert sandbox.deliveries(key=KEY)
        nowhere(answers=" ".join(answer.content.decode() for answer in answers))

    @pytest.mark.parametrize("word", ["ok", "echo:19001", "echo:424242", "status:500", "reset", "drip"])
    def test_fault_33_secret_leak_send_test_notification(
        self, word: str, sandbox: Sandbox, channel: Store, nowhere: Nowhere
    ) -> None:
        channel(sandbox.origin + PATH)
        sandbox.script(KEY, word)
        out = io.StringIO()

        try:
            call_command("send_test_notification", "alice", stdout=out, stderr=out)
        except CommandError as error:
            out.write("".join(traceback.format_exception(error)))

        assert out.getvalue()
        nowhere(out=out.getvalue())


class TestObjects:
    def test_fault_33_secret_leak_objects_shown(self, sandbox: Sandbox, channel: Store) -> None:
        stored = channel(sandbox.origin + PATH)
        NotificationService().accept([payload(user_id=stored.user_id)])
        sandbox.script(KEY, "echo:19001")
        [row] = claim(1, channels=["feishu"], options=service_options(), clock=None)
        assert row.endpoint
        result = attempt_send(FeishuFlowProvider(), row.request, row.endpoint)
        ended = build_settlement(row, result, service_options(), duration=0.1, age=0.1)
        objects: list[object] = [
            stored,
            stored.webhook_url,
            stored.bearer_token,
            row,
            row.endpoint,
            row.request,
            result,
            ended,
        ]
        objects += [
            ended.without_provider_data(),
            vars(stored),
            dataclasses.asdict(row),
            service_options(),
            Engine(),
            {stored: [row]},
        ]

        shown = [
            show(thing)
            for thing in objects
            for show in (str, repr, ascii, "{}".format, "{!r}".format, "%s".__mod__, "%r".__mod__)
        ]
        shown += [repr(pickle.dumps(thing)) for thing in objects if not isinstance(thing, Engine)]
        shown += [repr(copy.deepcopy(thing)) for thing in objects if not isinstance(thing, Engine)]

        assert isinstance(row, Claimed)
        assert [text for text in shown if found_in(text)] == []

    @pytest.mark.parametrize("keys", [[], ["no key"], [Fernet.generate_key().decode()]])
    def test_fault_33_secret_leak_exceptions_of_the_keys(self, keys: list[str], change: Callable[..., None]) -> None:
        stored = Secret.of(ADDRESS)
        change(ENCRYPTION_KEYS=keys)
        texts: list[str] = []

        for act in (lambda: Secret.of(TOKEN), stored.reveal, stored.rotated, Secret(TOKEN).reveal):
            try:
                act()
            except (SecretUnreadable, ImproperlyConfigured) as error:
                texts.append("".join(traceback.format_exception(error)) + repr(error))

        assert len(texts) >= 3
        assert [text for text in texts if found_in(text) or any(key in text for key in keys)] == []


@pytest.mark.acceptance
def test_fault_33_secret_leak_real_worker_at_debug(tmp_path: Path) -> None:
    words = ("ok", "echo", "echo:19001", "echo:424242", "reset", "garbage", "status:401", "drip", "redirect", "huge")
    with running_environment(tmp_path) as environment:
        worker = environment.start("worker", LOG_LEVEL="DEBUG")
        for number, word in enumerate(words):
            environment.sandbox.script(f"{KEY}{number}", word)
        environment.run(
            "from django.contrib.auth.models import User\n"
            "from notifications.api import request_notification\n"
            "from notifications.models import UserNotificationChannel\n"
            "from tests.support.payloads import payload_of\n"
            f"for number in range({len(words)}):\n"
            "    user = User.objects.create(username=f'user{number}')\n"
            "    UserNotificationChannel.objects.create(user=user, auth_type='bearer', bearer_token="
            f"{TOKEN!r}, webhook_url={environment.sandbox.origin + PATH!r} + str(number))\n"
            "    request_notification(payload(user.pk, f'k{number}'))"
        )
        wrong = payload_of(0, "k") | {"webhook_url": ADDRESS, "bearer_token": TOKEN}
        other = other_app(environment.valkey.url)
        other.send_task(FEISHU_REQUESTED, args=[wrong], queue="notifications")
        attempted = "SELECT count(DISTINCT record_id) FROM notification_delivery_attempts"
        wait_until(lambda: environment.rows(attempted)[0][0] == len(words), "every record was attempted")
        wait_until(
            lambda: environment.rows("SELECT 1 FROM notification_rejected_requests"), "the wrong event was rejected"
        )
        tested = environment.manage("send_test_notification", "user2")
        environment.manage("rotate_notification_keys")
        assert worker.terminate(30) == 0

        with redis.Redis.from_url(environment.valkey.url) as client:
            left = dict(redis_keys(client))
        tables = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
        rows = [environment.rows(f"SELECT t::text FROM {table} AS t") for (table,) in environment.rows(tables)]

    assert len(rows) > 10
    assert '"level": "DEBUG"' in worker.log
    assert "delivery.attempted" in worker.log
    assert "code 19001" in tested.stderr
    places = {"log": worker.log, "redis": left, "tables": rows, "command": tested}
    assert {place: found for place, text in places.items() if (found := found_in(text))} == {}


class TestErrorReports:
    """Django's page of an error with DEBUG on, and the mail it sends with DEBUG off."""

    FIELDS = {"auth_type": "bearer", "new_webhook_url": ADDRESS, "new_bearer_token": TOKEN}

    @pytest.fixture
    def reported(self, admin_client: Client, channel: Store, settings: Settings) -> Callable[..., str]:
        """Return a function that posts the form with the canaries, and returns the page of what went wrong."""
        settings.DEBUG = True
        settings.REDIS_URL = settings.CELERY_BROKER_URL = f"redis://:{KEY}@127.0.0.1:6379/0"
        stored = channel(ADDRESS)
        admin_client.raise_request_exception = False

        def post(**headers: str) -> str:
            url = f"{CHANNELS}{stored.pk}/change/"
            answer = admin_client.post(url, self.FIELDS, headers=headers, DATABASE_URL=f"postgres://u:{KEY}@h/d")
            assert answer.status_code == 500
            return answer.content.decode()

        return post

    @pytest.mark.parametrize("accept", ["text/html", "text/plain"])
    @pytest.mark.parametrize(
        "place",
        [
            *(
                "notifications.providers.feishu.flow.check_webhook_url",
                "notifications.admin.channel_form.ChannelForm.save",
            ),
            *("notifications.channels.rules.Secret.of", "django.contrib.sessions.backends.db.SessionStore.load"),
            "notifications.models.UserNotificationChannel.save",
        ],
    )
    def test_fault_33_secret_leak_debug_page(
        self, place: str, accept: str, reported: Callable[..., str], monkeypatch: pytest.MonkeyPatch, nowhere: Nowhere
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            if args == (ADDRESS,):
                return ADDRESS  # the token's turn is next, whose form no pattern knows
            raise OperationalError(f"cannot tell {ADDRESS} from another")

        monkeypatch.setattr(place, fail)

        page = reported(accept=accept)

        assert "cannot tell" in page
        assert "REDIS_URL" in page
        assert "new_bearer_token" in page
        monkeypatch.undo()
        assert found_in(page) == []

    @pytest.mark.parametrize("accept", ["text/html", "text/plain"])
    @pytest.mark.parametrize(
        "place",
        [
            *("notifications.web_api.channel.apply_changes", "django.contrib.sessions.backends.db.SessionStore.load"),
            *("notifications.providers.feishu.flow.check_webhook_url", "notifications.channels.rules.Secret.of"),
            *("notifications.models.UserNotificationChannel.save", "ninja.parser.Parser.parse_body"),
            "notifications.web_api.schemas.mask_url",
        ],
    )
    def test_fault_33_secret_leak_debug_page_of_the_http_api(
        self, place: str, accept: str, channel: Store, client: Client, settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        def fail(*args: Any, **kwargs: Any) -> Any:
            if args == (ADDRESS,) and place.endswith("Secret.of"):
                return Secret("x")  # the token's turn is next, whose form no pattern knows
            raise OperationalError(f"cannot tell {ADDRESS} from another")

        settings.DEBUG = True
        client.raise_request_exception = False
        client.force_login(channel(ADDRESS).user)
        monkeypatch.setattr(place, fail)
        fields = {"webhook_url": ADDRESS, "bearer_token": TOKEN}

        answer = client.put(API, fields, content_type="application/json", headers={"accept": accept})

        page = answer.content.decode()
        if place != "ninja.parser.Parser.parse_body":  # whatever that raises, the body is to blame
            assert answer.status_code == 500
            assert "cannot tell" in page
        monkeypatch.undo()
        assert found_in(page) == []

    @pytest.mark.parametrize(
        ("url", "place"),
        [(CHANNELS, "mask_url"), (f"{CHANNELS}%d/change/", "mask_url"), (f"{CHANNELS}%d/change/", "gettext")],
    )
    def test_fault_33_secret_leak_debug_page_of_looking(
        self, url: str, place: str, channel: Store, admin_client: Client, settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        def fail(text: str) -> str:
            raise RuntimeError(f"cannot show {text}")

        settings.DEBUG = True
        admin_client.raise_request_exception = False
        monkeypatch.setattr(f"notifications.admin.channels.{place}", fail)
        stored = channel(ADDRESS)

        page = admin_client.get(url.replace("%d", str(stored.pk))).content.decode()

        assert "cannot show" in page
        assert found_in(page) == []

    def test_fault_33_secret_leak_error_mail(self, mailoutbox: list[Any], settings: Settings) -> None:
        settings.ADMINS = [("x", "x@example.com")]
        settings.REDIS_URL = f"redis://:{KEY}@127.0.0.1:6379/0"
        request = RequestFactory().post("/admin/", self.FIELDS)
        logger = logging.Logger("django.request")
        logger.addHandler(AdminEmailHandler(include_html=True))

        try:
            raise ValueError(f"cannot reach {ADDRESS}")
        except ValueError:
            logger.exception("Internal Server Error", extra={"request": request, "status_code": 500})

        [mail] = mailoutbox
        text = f"{mail.subject} {mail.body} {mail.alternatives}"
        assert "cannot reach" in text
        assert "new_bearer_token" in text
        assert found_in(text) == []
