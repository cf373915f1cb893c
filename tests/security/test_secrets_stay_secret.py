"""Fault 33: whatever fails, neither the key of a webhook address nor its token appears in any output."""

from __future__ import annotations

import base64
import copy
import dataclasses
import html
import io
import itertools
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
from dev.waiting import wait_until
from notifications.conf import service_options
from notifications.delivery import settle
from notifications.delivery.claim import Claimed, claim
from notifications.delivery.engine import Engine
from notifications.delivery.settlement import build_settlement
from notifications.models import NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.providers.attempt import attempt_send
from notifications.providers.feishu.flow import FeishuFlowProvider
from notifications.security.secrets import Secret, SecretUnreadable
from notifications.service import NotificationService
from notifications.tasks import FEISHU_REQUESTED, deliver_due, handle_feishu_requested
from notifications.testing.sandbox.server import Sandbox
from tests.support.canaries import (
    ADDRESS,
    CANARY_PARTS,
    KEY,
    PATH,
    TOKEN,
    LogCapture,
    capture_logs,
    find_canaries,
    find_leaks,
    read_redis,
)
from tests.support.environment import ProjectEnvironment, running_environment
from tests.support.payloads import payload, payload_of

pytestmark = pytest.mark.django_db

API = "/api/channels/feishu"
CHANNELS = "/admin/notifications/usernotificationchannel/"
ANSWERS = [
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
TEST_MESSAGE_ANSWERS = ["ok", "echo:19001", "echo:424242", "status:500", "reset", "drip"]
AssertNoLeak = Callable[..., None]


@pytest.fixture
def sandbox(change: Callable[..., None]) -> Iterator[Sandbox]:
    """A receiver, and short timeouts."""
    with Sandbox() as sandbox:
        change(
            SANDBOX_ORIGINS=[sandbox.origin, "http://127.0.0.1:1", sandbox.origin.replace("http:", "https:")],
            TOTAL_TIMEOUT=0.6,
            READ_TIMEOUT=0.5,
            CONNECT_TIMEOUT=0.5,
        )
        yield sandbox


@pytest.fixture
def logs() -> Iterator[LogCapture]:
    with capture_logs() as logs:
        yield logs


@pytest.fixture
def assert_no_leak(logs: LogCapture, admin_client: Client, redis_client: redis.Redis) -> AssertNoLeak:
    """Return a function that searches the canaries in all places and in the given texts."""

    def search(**texts: object) -> None:
        assert logs.raw.getvalue(), "nothing was logged, so the search cannot fail"
        assert find_leaks(logs, admin_client, redis_client, **texts) == {}

    return search


@pytest.fixture
def channel(make_user: Callable[..., User]) -> Callable[..., UserNotificationChannel]:
    """Return a function that stores a channel with this address and the canary token.

    A second channel for a user replaces the first one, so that it is neither paused nor limited.
    """

    def store(url: str, name: str = "alice") -> UserNotificationChannel:
        user = User.objects.filter(username=name).first() or make_user(name)
        UserNotificationChannel.objects.filter(user=user).delete()
        return UserNotificationChannel.objects.create(
            user=user, webhook_url=url, auth_type="bearer", bearer_token=TOKEN
        )

    return store


Store = Callable[..., UserNotificationChannel]


def deliver(channel: UserNotificationChannel) -> NotificationRecord:
    """Handle one event in the Celery tasks and return its record."""
    result = handle_feishu_requested(payload(user_id=channel.user_id, dedupe_key=f"{channel.pk}"))
    assert find_canaries(repr(result)) == []
    deliver_due.run()
    return NotificationRecord.objects.get(dedupe_key=f"{channel.pk}")


class TestControl:
    """The search itself finds a canary."""

    def test_a_canary_in_a_text_is_found(self) -> None:
        for text in (ADDRESS, f"Bearer {TOKEN}", KEY.lower()):
            escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
            forms = [text, text.encode(), json.dumps([text]), html.escape(text), quote(text)]
            forms += [escaped, json.dumps(escaped)]
            forms += [base64.b64encode(b"{" * n + text.encode() + b"}") for n in range(3) if text != KEY.lower()]

            assert [form for form in forms if not find_canaries(form)] == []
        assert find_canaries("sk/canary...f60a1 ********") == []

    def test_a_canary_is_found_in_every_place(
        self, logs: LogCapture, admin_client: Client, redis_client: redis.Redis, channel: Store
    ) -> None:
        stored = channel("")
        UserNotificationChannel.objects.update(last_test_error=f"cannot reach {ADDRESS}")
        logging.getLogger("notifications.x").warning("cannot reach %s", ADDRESS)
        logging.getLogger("other").debug("with %s", TOKEN)
        redis_client.set("smartmate:planted", f"{TOKEN} {TOKEN}")
        with current_app.connection_for_write() as broker:
            current_app.send_task(FEISHU_REQUESTED, args=[{"x": ADDRESS}], queue="notifications", connection=broker)

        leaks = find_leaks(logs, admin_client, redis_client)

        redis_client.delete("notifications")
        for place in (
            *("logs", "table user_notification_channels", "redis b'smartmate:planted'", "redis b'notifications'"),
            f"page {CHANNELS}{stored.pk}/change/",
        ):
            assert leaks.get(place), place
        assert [part in logs.raw.getvalue() for part in CANARY_PARTS] == [True, False]
        assert [part in logs.written.getvalue() for part in CANARY_PARTS] == [False, True]


class TestAnswers:
    def test_fault_33_secret_leak_answer(
        self, sandbox: Sandbox, channel: Store, logs: LogCapture, assert_no_leak: AssertNoLeak
    ) -> None:
        for answer in ANSWERS:
            sandbox.script(KEY, answer)
            logged = len(logs.raw.getvalue())

            record = deliver(channel(sandbox.origin + PATH))

            texts = (vars(record), logs.raw.getvalue()[logged:])
            assert [find_canaries(text) for text in texts] == [[], []], answer
        deliveries = sandbox.deliveries(key=KEY)
        assert [delivery.answer for delivery in deliveries] == ANSWERS
        # The canary was sent with each message, so each answer could leak it.
        assert {delivery.headers["Authorization"] for delivery in deliveries} == {f"Bearer {TOKEN}"}
        assert_no_leak()

    def test_fault_33_secret_leak_headers_of_a_response_are_not_sent_again(
        self, sandbox: Sandbox, channel: Store, assert_no_leak: AssertNoLeak
    ) -> None:
        sandbox.script(KEY, "echo:424242", "ok")
        deliver(channel(sandbox.origin + PATH))
        NotificationRecord.objects.update(next_attempt_at="2026-01-01T00:00Z")

        Engine().deliver_due()

        first, second = sandbox.deliveries(key=KEY)
        assert first.headers.keys() == second.headers.keys()
        assert_no_leak()

    def test_an_echo_is_interpreted_before_its_secrets_are_removed(self, sandbox: Sandbox, channel: Store) -> None:
        stored = channel(sandbox.origin + PATH)
        UserNotificationChannel.objects.update(bearer_token="code")
        sandbox.script(KEY, "echo:19001")

        assert deliver(stored).last_error_code == "provider_config"


class TestNoResponse:
    def test_fault_33_secret_leak_refused_connection(
        self, sandbox: Sandbox, channel: Store, assert_no_leak: AssertNoLeak
    ) -> None:
        record = deliver(channel(f"http://127.0.0.1:1{PATH}"))

        assert record.last_error_code == "network_error"
        assert_no_leak()

    def test_fault_33_secret_leak_tls_failure(
        self, sandbox: Sandbox, channel: Store, assert_no_leak: AssertNoLeak
    ) -> None:
        record = deliver(channel(sandbox.origin.replace("http:", "https:") + PATH))

        assert record.last_error == "TLS failed"
        assert_no_leak()

    def test_fault_33_secret_leak_name_without_a_public_address(
        self, channel: Store, assert_no_leak: AssertNoLeak, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = socket.getaddrinfo
        addresses = ["", "127.0.0.1", "::ffff:10.0.0.1"]
        lookups = iter(addresses)

        def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "www.feishu.cn":
                return real(host, port, *args, **kwargs)
            if not (address := next(lookups)):
                raise socket.gaierror(socket.EAI_NONAME, f"no such name: {ADDRESS}")
            return real(address, port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

        codes = {address: deliver(channel(ADDRESS)).last_error_code for address in addresses}

        assert codes == dict.fromkeys(addresses, "network_error")
        assert_no_leak()

    def test_fault_33_secret_leak_address_refused_by_the_rules(
        self, channel: Store, assert_no_leak: AssertNoLeak
    ) -> None:
        urls = [f"https://evil.example{PATH}", f"https://{TOKEN}@www.feishu.cn{PATH}", f"gopher:{PATH}\n", "\0" + KEY]

        codes = [deliver(channel(url)).last_error_code for url in urls]

        assert codes == ["invalid_url"] * len(urls)
        assert_no_leak()

    def test_fault_33_secret_leak_token_with_a_line_break(
        self, sandbox: Sandbox, channel: Store, assert_no_leak: AssertNoLeak
    ) -> None:
        stored = channel(sandbox.origin + PATH)
        UserNotificationChannel.objects.update(bearer_token=f"{TOKEN}\r\nX-Evil: 1")

        record = deliver(stored)

        assert record.last_error_code == "network_error"
        assert_no_leak()

    def test_fault_33_secret_leak_unreadable_ciphertext(
        self, channel: Store, assert_no_leak: AssertNoLeak, change: Callable[..., None]
    ) -> None:
        key_lists: list[list[str]] = [[Fernet.generate_key().decode()], [], ["no key"]]
        valid_keys = service_options().encryption_keys

        for keys in key_lists:
            change(ENCRYPTION_KEYS=valid_keys)
            stored = channel(ADDRESS)
            change(ENCRYPTION_KEYS=keys)
            record = deliver(stored)
            assert (record.status, record.last_error_code) == ("failed", "provider_config"), keys
        assert_no_leak()


class TestDatabase:
    @pytest.mark.django_db(
        transaction=True
    )  # PostgreSQL refuses the result of LeakingErrorProvider and aborts the transaction
    @pytest.mark.parametrize("provider", ["RaisingProvider", "LeakingErrorProvider"])
    def test_fault_33_secret_leak_provider_that_raises_with_the_address(
        self, provider: str, channel: Store, assert_no_leak: AssertNoLeak, logs: LogCapture, change: Callable[..., None]
    ) -> None:
        change(PROVIDERS={"feishu": f"tests.support.canaries.{provider}"})

        record = deliver(channel(ADDRESS))

        assert record.status == "failed"
        assert record.last_error
        assert ("cannot be stored whole" in logs.raw.getvalue()) == (provider == "LeakingErrorProvider")
        assert_no_leak()

    def test_fault_33_secret_leak_database_that_fails_while_settling(
        self, sandbox: Sandbox, channel: Store, assert_no_leak: AssertNoLeak, monkeypatch: pytest.MonkeyPatch
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
        assert_no_leak()

    def test_fault_33_secret_leak_dumpdata(self, channel: Store) -> None:
        channel(ADDRESS)
        out = io.StringIO()

        call_command("dumpdata", stdout=out)

        assert "usernotificationchannel" in out.getvalue()
        assert find_canaries(out.getvalue()) == []


class TestInputs:
    def test_fault_33_secret_leak_rejected_event(self, assert_no_leak: AssertNoLeak) -> None:
        wrong = payload(user_id=0, webhook_url=ADDRESS, bearer_token=TOKEN, trace_id=f"Bearer {TOKEN}") | {ADDRESS: 1}

        handle_feishu_requested(wrong)
        handle_feishu_requested(payload(), f"see {ADDRESS}")

        assert RejectedRequest.objects.count() == 2
        assert_no_leak()

    def test_fault_33_secret_leak_admin_form(
        self, channel: Store, admin_client: Client, logs: LogCapture, redis_client: redis.Redis
    ) -> None:
        stored = channel(ADDRESS)
        forms: list[dict[str, str]] = [
            {"new_webhook_url": f"http://evil.example{PATH}", "new_bearer_token": TOKEN},
            {"new_webhook_url": ADDRESS, "new_bearer_token": f"{TOKEN} two"},
            {"new_webhook_url": ADDRESS + "?" * 3000, "new_bearer_token": TOKEN * 100},
            {"new_webhook_url": ADDRESS, "new_bearer_token": TOKEN, "clear_token": "on"},
            {"new_webhook_url": ADDRESS, "new_bearer_token": TOKEN, "auth_type": "nonsense"},
            {"new_webhook_url": ADDRESS, "new_bearer_token": TOKEN},
        ]

        pages: dict[str, str] = {}
        for number, fields in enumerate(forms):
            changed = admin_client.post(f"{CHANNELS}{stored.pk}/change/", {"auth_type": "none"} | fields)
            added = admin_client.post(f"{CHANNELS}add/", {"auth_type": "none", "user": 0, "channel": "x"} | fields)
            assert added.status_code == 200, f"the form of an unknown user was accepted: {fields}"
            pages |= {f"changed {number}": changed.content.decode(), f"added {number}": added.content.decode()}
        assert find_leaks(logs, admin_client, redis_client, **pages) == {}

    def test_fault_33_secret_leak_http_api(self, channel: Store, client: Client, assert_no_leak: AssertNoLeak) -> None:
        requests: list[dict[str, Any]] = [
            {"webhook_url": f"http://evil.example{PATH}", "bearer_token": TOKEN},
            {"webhook_url": ADDRESS, "bearer_token": f"{TOKEN} two"},
            {"webhook_url": ADDRESS + "?" * 3000, "bearer_token": TOKEN * 100},
            {"webhook_url": [ADDRESS], "bearer_token": {TOKEN: TOKEN}},
            {"webhook_url": ADDRESS, "bearer_token": TOKEN, "auth_type": TOKEN, "enabled": ADDRESS},
            {"webhook_url": ADDRESS, "bearer_token": TOKEN},
        ]

        texts: dict[str, str] = {}
        for number, fields in enumerate(requests):
            stored = channel(ADDRESS)
            UserNotificationChannel.objects.update(last_test_error="code 1: x", pause_reason="x")
            client.force_login(stored.user)
            responses = [
                client.put(API, fields, content_type="application/json"),
                client.put(API, json.dumps(fields)[:-1], content_type="application/json"),
                client.put(API, fields | {"x": TOKEN}, content_type="application/json"),
                *(client.get(API), client.get("/api/notifications"), client.delete(API)),
            ]
            texts |= {f"{number}.{step}": response.content.decode() for step, response in enumerate(responses)}
        assert_no_leak(**texts)

    def test_fault_33_secret_leak_http_api_with_texts_that_contain_the_address(
        self, channel: Store, client: Client
    ) -> None:
        client.force_login(channel(ADDRESS).user)
        text = f"cannot reach {ADDRESS}"
        UserNotificationChannel.objects.update(last_test_error=text, pause_reason=text)

        response = client.get(API)

        for field in ("last_test_error", "pause_reason"):
            assert "cannot reach" in response.json()[field], field
        assert find_canaries(response.content) == []

    def test_fault_33_secret_leak_http_api_test_message(
        self, sandbox: Sandbox, channel: Store, client: Client, assert_no_leak: AssertNoLeak
    ) -> None:
        texts: dict[str, str] = {}
        for number, answer in enumerate(TEST_MESSAGE_ANSWERS):
            client.force_login(channel(sandbox.origin + PATH, f"user{number}").user)
            sandbox.script(KEY, answer)

            responses = [client.post(f"{API}/test"), client.get(API), client.get("/api/notifications")]

            assert {response.status_code for response in responses} == {200}, answer
            assert len(sandbox.deliveries(key=KEY)) == number + 1, answer
            texts[answer] = " ".join(response.content.decode() for response in responses)
        assert_no_leak(**texts)

    def test_fault_33_secret_leak_send_test_notification(
        self, sandbox: Sandbox, channel: Store, assert_no_leak: AssertNoLeak
    ) -> None:
        texts: dict[str, str] = {}
        for number, answer in enumerate(TEST_MESSAGE_ANSWERS):
            channel(sandbox.origin + PATH, f"user{number}")
            sandbox.script(KEY, answer)
            out = io.StringIO()

            try:
                call_command("send_test_notification", f"user{number}", stdout=out, stderr=out)
            except CommandError as error:
                out.write("".join(traceback.format_exception(error)))

            assert out.getvalue(), answer
            texts[answer] = out.getvalue()
        assert_no_leak(**texts)


class TestObjects:
    def test_fault_33_secret_leak_objects_as_text(self, sandbox: Sandbox, channel: Store) -> None:
        stored = channel(sandbox.origin + PATH)
        NotificationService().accept([payload(user_id=stored.user_id)])
        sandbox.script(KEY, "echo:19001")
        [row] = claim(1, channels=["feishu"], options=service_options(), clock=None)
        assert row.endpoint
        result = attempt_send(FeishuFlowProvider(), row.request, row.endpoint)
        settlement = build_settlement(row, result, service_options(), duration=0.1, age=0.1)
        objects: list[object] = [
            stored,
            stored.webhook_url,
            stored.bearer_token,
            row,
            row.endpoint,
            row.request,
            result,
            settlement,
        ]
        objects += [
            settlement.without_provider_data(),
            vars(stored),
            dataclasses.asdict(row),
            service_options(),
            Engine(),
            {stored: [row]},
        ]

        texts = [
            to_text(value)
            for value in objects
            for to_text in (str, repr, ascii, "{}".format, "{!r}".format, "%s".__mod__, "%r".__mod__)
        ]
        texts += [repr(pickle.dumps(value)) for value in objects if not isinstance(value, Engine)]
        texts += [repr(copy.deepcopy(value)) for value in objects if not isinstance(value, Engine)]

        assert isinstance(row, Claimed)
        assert [text for text in texts if find_canaries(text)] == []

    def test_fault_33_secret_leak_exceptions_of_the_keys(self, change: Callable[..., None]) -> None:
        stored = Secret.of(ADDRESS)
        key_lists: list[list[str]] = [[], ["no key"], [Fernet.generate_key().decode()]]
        for keys in key_lists:
            change(ENCRYPTION_KEYS=keys)
            texts: list[str] = []

            for call in (lambda: Secret.of(TOKEN), stored.reveal, stored.rotated, Secret(TOKEN).reveal):
                try:
                    call()
                except (SecretUnreadable, ImproperlyConfigured) as error:
                    texts.append("".join(traceback.format_exception(error)) + repr(error))

            assert len(texts) >= 3, keys
            assert [text for text in texts if find_canaries(text) or any(key in text for key in keys)] == [], keys


@pytest.mark.acceptance
def test_fault_33_secret_leak_real_worker_at_debug(tmp_path: Path) -> None:
    answers = ("ok", "echo", "echo:19001", "echo:424242", "reset", "garbage", "status:401", "drip", "redirect", "huge")
    with running_environment(tmp_path, ProjectEnvironment) as environment:
        worker = environment.start("worker", LOG_LEVEL="DEBUG")
        for number, answer in enumerate(answers):
            environment.sandbox.script(f"{KEY}{number}", answer)
        environment.run(
            "from django.contrib.auth.models import User\n"
            "from notifications.api import request_notification\n"
            "from notifications.models import UserNotificationChannel\n"
            "from tests.support.payloads import payload_of\n"
            f"for number in range({len(answers)}):\n"
            "    user = User.objects.create(username=f'user{number}')\n"
            "    UserNotificationChannel.objects.create(user=user, auth_type='bearer', bearer_token="
            f"{TOKEN!r}, webhook_url={environment.sandbox.origin + PATH!r} + str(number))\n"
            "    request_notification(payload_of(user.pk, f'k{number}'))"
        )
        wrong = payload_of(0, "k") | {"webhook_url": ADDRESS, "bearer_token": TOKEN}
        other = other_app(environment.valkey.url)
        other.send_task(FEISHU_REQUESTED, args=[wrong], queue="notifications")
        attempted = "SELECT count(DISTINCT record_id) FROM notification_delivery_attempts"
        wait_until(lambda: environment.rows(attempted)[0][0] == len(answers), "every record was attempted")
        wait_until(
            lambda: environment.rows("SELECT 1 FROM notification_rejected_requests"), "the wrong event was rejected"
        )
        tested = environment.manage("send_test_notification", "user2")
        environment.manage("rotate_notification_keys")
        assert worker.terminate(30) == 0

        with redis.Redis.from_url(environment.valkey.url) as client:
            redis_content = dict(read_redis(client))
        tables = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
        rows = [environment.rows(f"SELECT t::text FROM {table} AS t") for (table,) in environment.rows(tables)]

    assert len(rows) > 10
    assert '"level": "DEBUG"' in worker.log
    assert "delivery.attempted" in worker.log
    assert "code 19001" in tested.stderr
    places = {"log": worker.log, "redis": redis_content, "tables": rows, "command": tested}
    assert {place: canaries for place, text in places.items() if (canaries := find_canaries(text))} == {}


class TestErrorReports:
    """Django's error page with DEBUG = True, and its error mail with DEBUG = False."""

    FIELDS = {"auth_type": "bearer", "new_webhook_url": ADDRESS, "new_bearer_token": TOKEN}

    @pytest.fixture
    def post_form(self, admin_client: Client, channel: Store, settings: Settings) -> Callable[..., str]:
        """Return a function that posts the form with the canaries and returns the error page."""
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

    def test_fault_33_secret_leak_debug_page(self, post_form: Callable[..., str]) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            if args == (ADDRESS,):
                return ADDRESS  # fail at the next call, with the token, whose form no pattern knows
            raise OperationalError(f"cannot tell {ADDRESS} from another")

        places = [
            *(
                "notifications.providers.feishu.flow.check_webhook_url",
                "notifications.admin.channel_form.ChannelForm.save",
            ),
            *("notifications.channels.rules.Secret.of", "django.contrib.sessions.backends.db.SessionStore.load"),
            "notifications.models.UserNotificationChannel.save",
        ]
        for place, accept in itertools.product(places, ("text/html", "text/plain")):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(place, fail)
                page = post_form(accept=accept)

            for text in ("cannot tell", "REDIS_URL", "new_bearer_token"):
                assert text in page, (place, accept)
            assert find_canaries(page) == [], (place, accept)

    def test_fault_33_secret_leak_debug_page_of_the_http_api(
        self, channel: Store, client: Client, settings: Settings
    ) -> None:
        settings.DEBUG = True
        client.raise_request_exception = False
        client.force_login(channel(ADDRESS).user)
        fields = {"webhook_url": ADDRESS, "bearer_token": TOKEN}
        places = [
            *("notifications.web_api.channel.apply_changes", "django.contrib.sessions.backends.db.SessionStore.load"),
            *("notifications.providers.feishu.flow.check_webhook_url", "notifications.channels.rules.Secret.of"),
            *("notifications.models.UserNotificationChannel.save", "ninja.parser.Parser.parse_body"),
            "notifications.web_api.schemas.mask_url",
        ]
        for place, accept in itertools.product(places, ("text/html", "text/plain")):

            def fail(*args: Any, place: str = place, **kwargs: Any) -> Any:
                if args == (ADDRESS,) and place.endswith("Secret.of"):
                    return Secret("x")  # fail at the next call, with the token, whose form no pattern knows
                raise OperationalError(f"cannot tell {ADDRESS} from another")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(place, fail)
                response = client.put(API, fields, content_type="application/json", headers={"accept": accept})

            page = response.content.decode()
            if place != "ninja.parser.Parser.parse_body":  # every exception there is a bad request
                assert (response.status_code, "cannot tell" in page) == (500, True), (place, accept)
            assert find_canaries(page) == [], (place, accept)

    def test_fault_33_secret_leak_debug_page_of_reading(
        self, channel: Store, admin_client: Client, settings: Settings
    ) -> None:
        def fail(text: str) -> str:
            raise RuntimeError(f"cannot show {text}")

        settings.DEBUG = True
        admin_client.raise_request_exception = False
        stored = channel(ADDRESS)
        for url, place in [
            (CHANNELS, "mask_url"),
            (f"{CHANNELS}%d/change/", "mask_url"),
            (f"{CHANNELS}%d/change/", "gettext"),
        ]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(f"notifications.admin.channels.{place}", fail)
                page = admin_client.get(url.replace("%d", str(stored.pk))).content.decode()

            assert "cannot show" in page, (url, place)
            assert find_canaries(page) == [], (url, place)

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
        assert find_canaries(text) == []
