"""One real record in PostgreSQL and the real locks of its claims in Valkey, which follow the steps of the model."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import redis

from notifications.broker.redis_client import RedisGateway, gateway
from notifications.conf import ServiceOptions, service_options
from notifications.delivery.admission import hold
from notifications.delivery.claim import Claimed, claim, release_claims
from notifications.delivery.locks import Locks
from notifications.delivery.settle import record_lost_attempts, settle_batch
from notifications.delivery.settlement import build_settlement, unsendable_result
from notifications.models import NotificationRecord
from notifications.providers.base import SendResult
from notifications.querysets import NotificationQuerySet
from notifications.service import NotificationService
from notifications.states import CLAIMABLE, FINAL, ErrorCode, HoldReason, Outcome
from tests.model.world import GONE, ORPHANED, Kind, Stage, State, Step
from tests.support.factories import make_record

ANSWERS = {
    Kind.BE_ACCEPTED: SendResult(outcome=Outcome.SUCCESS),
    Kind.BE_PUT_OFF: SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code=ErrorCode.PROVIDER_5XX),
    Kind.BE_REFUSED: SendResult(outcome=Outcome.PERMANENT_FAIL, error_code=ErrorCode.PROVIDER_CONFIG),
    Kind.BE_SKIPPED: SendResult(outcome=Outcome.SKIPPED, error_code=ErrorCode.RECIPIENT_MISSING),
    Kind.LOSE_ANSWER: SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code=ErrorCode.PROVIDER_TIMEOUT),
}


class RealRecord:
    """Performs the steps of the model with the functions of the project, and compares the results with the model.

    max_attempts: as in the model's rules. client: reads the locks, and deletes them where the model ends them.
    """

    def __init__(self, client: redis.Redis, *, max_attempts: int) -> None:
        self.client = client
        self.now = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
        self.options: ServiceOptions = dataclasses.replace(service_options(), max_attempts=max_attempts)
        self.service = NotificationService(options=self.options, clock=self.clock)
        self.row = make_record("pending", next_attempt_at=self.now, max_attempts=max_attempts)
        self.claims: dict[int, Claimed] = {}
        self.answers: dict[int, SendResult] = {}

    def clock(self) -> datetime:
        """Return the time. It moves only when something has to become due."""
        return self.now

    @property
    def record(self) -> NotificationQuerySet[NotificationRecord]:
        """The record as a queryset, for replay and cancel."""
        return NotificationRecord.objects.filter(pk=self.row.pk)

    def take(self, step: Step, before: State, after: State) -> None:
        """Take the step. Raises AssertionError if a result differs from the model's."""
        if step.worker != GONE:
            self._take_worker_step(step.kind, step.worker, before, after)
        match step.kind:
            case Kind.BECOME_DUE:
                self._let_time_pass()
            case Kind.ORPHAN_LOCK_ENDS:
                self._end_locks(self._locks() - {claimed.lease_token for claimed in self.claims.values()})
            case Kind.REDIS_RESTARTS_EMPTY:
                self._end_locks(self._locks())
            case Kind.REPLAY:
                assert self.service.replay(self.record, None, "model") == 1
            case Kind.FORCE_REPLAY:
                assert self.service.replay(self.record, None, "model") == 0
                assert self.service.replay(self.record, None, "model", force=True) == 1
            case Kind.CANCEL:
                assert self.service.cancel(self.record, None, "model") == 1

    def _take_worker_step(self, kind: Kind, w: int, before: State, after: State) -> None:
        locks = Locks(RedisGateway("", timeout=1, silence=1) if before.redis_away else gateway(), ttl=600)
        match kind:
            case Kind.CLAIM:
                [self.claims[w]] = self._claim()
                assert self._seen(w) == self._expected(w, before, after)
            case Kind.TAKE_LOCK | Kind.CONTINUE_WITHOUT_LOCK:
                locks.hold_claim(self.claims[w].lease_token, seconds=600)
                locks.receive_answers()
            case Kind.FIND_LOCK_GONE | Kind.CANNOT_FIND_LOCK:
                assert not locks.is_claim_held(self.claims[w].previous_lease or "")
            case Kind.FIND_LOCK_HELD:
                assert locks.is_claim_held(self.claims[w].previous_lease or "")
                release_claims([self.claims[w]], delay=self.options.held_key_delay, clock=self.clock)
            case Kind.HOLD:
                hold([self.claims[w]], HoldReason.RATE_LIMITED, delay=60, clock=self.clock)
            case Kind.RECORD_LOST_ATTEMPT:
                assert record_lost_attempts([self.claims[w]], self.clock) == set()
            case Kind.FIND_CLAIM_INVALID:
                assert record_lost_attempts([self.claims[w]], self.clock) == {self.row.pk}
            case Kind.FIND_LEASE_TOO_SHORT | Kind.RELEASE_SECOND_RECOVERY:
                release_claims([self.claims[w]], delay=0, clock=self.clock)
            case Kind.BEGIN:
                assert not self.claims[w].exhausted
            case Kind.FIND_BUDGET_SPENT:
                assert self.claims[w].exhausted
                self.answers[w] = unsendable_result(self.claims[w])
            case Kind.SETTLE_SUCCESS | Kind.SETTLE_FAILURE:
                item = build_settlement(self.claims[w], self.answers[w], self.options, duration=0, age=0)
                taken = settle_batch([item], self.clock)
                assert taken == ({self.row.pk} if before.record != after.record else set())
            case Kind.LEASE_ENDS if before.record.lease == w and not before.record.due:
                self._let_time_pass()
            case Kind.LOCK_ENDS if before.workers[w].holds:
                self._end_locks({self.claims[w].lease_token})
            case _ if kind in ANSWERS:
                self.answers[w] = ANSWERS[kind]
        if after.workers[w].stage == Stage.IDLE:
            self.claims.pop(w, None)

    def check(self, state: State) -> None:
        """Compare the record and the locks of its claims with the model."""
        row, model = self.row, state.record
        row.refresh_from_db()
        cancelled = row.status == "skipped" and row.last_error_code == ErrorCode.CANCELLED
        due = row.next_attempt_at is not None and row.next_attempt_at <= self.now
        seen = (row.status, row.attempt_count, row.round, self._lease_owner(row.lease_token), due, cancelled)
        assert seen == (model.status, model.attempts, model.round, model.lease, model.due, model.cancelled)
        holders = {w for w, claimed in self.claims.items() if claimed.lease_token in self._locks()}
        assert holders == {w for w, worker in enumerate(state.workers) if worker.holds}

    def check_refusals(self, state: State) -> None:
        """Check that the functions refuse what the model forbids, and that a sent record has a successful attempt."""
        model = state.record
        if not model.due:
            assert self._claim() == []
        if model.status not in FINAL:
            assert self.service.replay(self.record, None, "model", force=True) == 0
        if model.status not in CLAIMABLE:
            assert self.service.cancel(self.record, None, "model") == 0
        if model.status == "sent":
            assert self.row.attempts.filter(outcome=Outcome.SUCCESS).exists()

    def _claim(self) -> list[Claimed]:
        return claim(1, channels=["feishu"], options=self.options, clock=self.clock, ids=[self.row.pk])

    def _let_time_pass(self) -> None:
        self.row.refresh_from_db()
        assert self.row.next_attempt_at is not None
        assert self.row.next_attempt_at > self.now
        self.now = self.row.next_attempt_at

    def _seen(self, w: int) -> tuple[object, ...]:
        claimed = self.claims[w]
        lease = self._lease_owner(claimed.previous_lease)
        return claimed.attempt_count, claimed.round, claimed.exhausted, claimed.previous_status, lease

    def _expected(self, w: int, before: State, after: State) -> tuple[object, ...]:
        was, now = before.record, after.record
        return now.attempts, now.round, was.attempts == now.attempts, was.status, was.lease

    def _lease_owner(self, token: object) -> int | None:
        if token is None:
            return None
        former = ORPHANED if str(token) in self._locks() else GONE
        return next((w for w, claimed in self.claims.items() if claimed.lease_token == str(token)), former)

    def _locks(self) -> set[str]:
        """Return the tokens of the claims whose lock is in Redis."""
        return {name.decode().rpartition(":")[2] for name in self.client.scan_iter(gateway().key("claim:*"))}

    def _end_locks(self, tokens: set[str]) -> None:
        for token in tokens:
            self.client.delete(gateway().key(f"claim:{token}"))
