"""RabbitMQ as Celery's broker is killed, or a link to it is cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from kombu import Connection, Queue

from dev.keeper import private_directory
from dev.proxy import Proxy
from dev.rabbitmq import RabbitMQ, find
from dev.waiting import wait_until
from tests.support.fault_environment import FaultEnvironment
from tests.support.payloads import payload_of

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(find() is None and not os.environ.get("CI"), reason="no rabbitmq-server on this machine"),
]


@dataclass
class Rabbit:
    """A RabbitMQ, and the proxy through which the processes of an environment reach it."""

    broker: RabbitMQ
    link: Proxy

    def kill_and_start(self) -> None:
        """Kill the broker and start it again with its data."""
        self.broker.kill()
        self.broker.start()

    def count_messages(self, queue: str) -> int:
        """Return the messages that wait in a queue; 0 if nobody has declared it."""
        with Connection(self.broker.url) as connection, connection.channel() as channel:
            try:
                declared: Any = Queue(queue, channel=channel).queue_declare(passive=True)
                return int(declared.message_count)
            except connection.channel_errors:
                return 0

    def purge(self, queue: str) -> None:
        """Delete the messages that wait in a queue."""
        with Connection(self.broker.url) as connection, connection.channel() as channel:
            Queue(queue, channel=channel).purge()


@pytest.fixture
def rabbit(environment: FaultEnvironment) -> Rabbit:
    """Give the environment a RabbitMQ as its broker."""
    broker = environment.start_server(RabbitMQ(environment.stack.enter_context(private_directory())))
    link = environment.stack.enter_context(Proxy(broker.port))
    environment.env |= {"CELERY_BROKER_URL": link.url(broker.url), "NOTIFICATIONS_SWEEP_INTERVAL": "1"}
    return Rabbit(broker, link)


def test_beat_sends_again_after_each_cut(environment: FaultEnvironment, rabbit: Rabbit) -> None:
    cuts: dict[str, Callable[[], None]] = {"killed": rabbit.kill_and_start, "link reset": rabbit.link.reset_all}
    environment.start("beat")
    wait_until(lambda: rabbit.count_messages("deliver"), "beat sends")

    for name, cut in cuts.items():
        cut()
        rabbit.purge("deliver")
        wait_until(lambda: rabbit.count_messages("deliver"), f"beat sends again: {name}")


def test_worker_goes_on_after_the_broker_was_killed(environment: FaultEnvironment, rabbit: Rabbit) -> None:
    user, _key = environment.add_user()
    worker = environment.start_worker(FAULTS="before_send=hold")
    environment.start("beat")
    records = environment.request(user, "in flight")
    environment.wait_for_point("before_send")

    rabbit.kill_and_start()
    records += environment.request(user, *(f"k{number}" for number in range(30)))
    wait_until(lambda: worker.log.count("Connected to amqp") > 1, "the worker connects again while a task runs")
    environment.release_point("before_send")

    environment.wait_for_status("sent", len(records))
    wait_until(lambda: not rabbit.count_messages("notifications"), "the worker takes messages again")
    # It would restore the count from pool threads, and two threads would read one socket.
    assert "reducing the prefetch count" not in worker.log
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_event_that_the_broker_did_not_confirm_is_not_published(environment: FaultEnvironment, rabbit: Rabbit) -> None:
    user, _key = environment.add_user()
    event = payload_of(user, "lost-event")
    rabbit.link.lose_reply_to(b"lost-event")

    outcome = environment.run(
        "from kombu.exceptions import OperationalError\n"
        "from notifications.broker.nudge import publish_event\n"
        "try:\n"
        f"    publish_event('notification.feishu.requested', {event!r})\n"
        "    result = 'published'\n"
        "except OperationalError:\n"
        "    result = 'not published'\n"
        f"publish_event('notification.feishu.requested', {event!r})\n"
    )

    assert (outcome, rabbit.link.lost_replies) == ("not published", 1)
    assert rabbit.count_messages("notifications") == 2
