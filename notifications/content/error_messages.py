"""What each error code means, and what a person does about it."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from notifications.states import ErrorCode

CODES: dict[str, Promise] = {
    ErrorCode.PROVIDER_TIMEOUT: _("The endpoint did not answer in time; it may have taken the message all the same."),
    ErrorCode.PROVIDER_RATE_LIMITED: _("The endpoint asked us to slow down."),
    ErrorCode.PROVIDER_5XX: _("The endpoint had an error of its own."),
    ErrorCode.NETWORK_ERROR: _("The endpoint could not be reached."),
    ErrorCode.RECIPIENT_MISSING: _("The user has no such channel, or it is switched off."),
    ErrorCode.INVALID_URL: _("The webhook address is not one we may call; it has to be entered again."),
    ErrorCode.PROVIDER_AUTH_FAILED: _("The endpoint refused our authentication; the bearer token may be wrong."),
    ErrorCode.PAYLOAD_INVALID: _("The endpoint refused the message itself; it will refuse the same message again."),
    ErrorCode.PROVIDER_CONFIG: _(
        "The endpoint needs a person: bot removed, flow switched off, our address not allowed, or its stored address "
        "cannot be read."
    ),
    ErrorCode.PROVIDER_UNMAPPED: _("The endpoint answered with a code we have no meaning for."),
    ErrorCode.LEASE_EXPIRED: _("The worker of the last attempt vanished; the message may have arrived."),
    ErrorCode.CANCELLED: _("An operator or the producer called it off."),
    ErrorCode.EXPIRED: _("Its time was over before it could be sent."),
    ErrorCode.ATTEMPTS_EXHAUSTED: _("No attempt was left in its budget."),
    ErrorCode.INTERNAL_ERROR: _("A bug on our side; the worker's log tells more."),
}
"""A provider may bring codes of its own; those are shown without a sentence."""

REMEDIES: dict[str, Promise] = {
    ErrorCode.PROVIDER_TIMEOUT: _("Find out whether it arrived; replay it if it did not."),
    ErrorCode.PROVIDER_RATE_LIMITED: _("Let fewer messages go to this endpoint, then replay it."),
    ErrorCode.PROVIDER_5XX: _("Replay it once the endpoint works again."),
    ErrorCode.NETWORK_ERROR: _("Look at network, name service and certificates between us and it, then replay it."),
    ErrorCode.RECIPIENT_MISSING: _("Once the user can be reached, it can be replayed."),
    ErrorCode.INVALID_URL: _("Let the user enter the address anew, then replay it."),
    ErrorCode.PROVIDER_AUTH_FAILED: _("Let the user enter a valid token, then replay it."),
    ErrorCode.PAYLOAD_INVALID: _("Show it to whoever asked for it: a replay sends the same message again."),
    ErrorCode.PROVIDER_CONFIG: _("Remove the cause, then replay it."),
    ErrorCode.PROVIDER_UNMAPPED: _(
        "Read the answer below; report its code, so that it gets a meaning. Then replay it."
    ),
    ErrorCode.LEASE_EXPIRED: _("Find out whether it arrived; replay it if it did not."),
    ErrorCode.CANCELLED: _("If it should go out after all, replay it with force."),
    ErrorCode.EXPIRED: _("Nothing; its channel's page may say why it had to wait."),
    ErrorCode.ATTEMPTS_EXHAUSTED: _("Replay it: that gives it a fresh budget."),
    ErrorCode.INTERNAL_ERROR: _("Read the log of the worker named below and mend the bug, then replay it."),
}
"""What a person does about a record that stopped with this code."""
