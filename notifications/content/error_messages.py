"""The meaning of each error code, for operators and for users, and the remedy for operators."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from notifications.states import ErrorCode

ERROR_MESSAGES: dict[str, Promise] = {
    ErrorCode.PROVIDER_TIMEOUT: _("The endpoint did not answer in time. It may have received the message."),
    ErrorCode.PROVIDER_RATE_LIMITED: _("The endpoint's rate limit was exceeded."),
    ErrorCode.PROVIDER_5XX: _("The endpoint returned a server error (5xx)."),
    ErrorCode.NETWORK_ERROR: _("The endpoint could not be reached."),
    ErrorCode.RECIPIENT_MISSING: _("The user has no such channel, or the channel is disabled."),
    ErrorCode.INVALID_URL: _("The webhook address is not allowed. Enter the address again."),
    ErrorCode.PROVIDER_AUTH_FAILED: _("The endpoint rejected the authentication, or the mail server rejected ours."),
    ErrorCode.PAYLOAD_INVALID: _("The endpoint rejected the content of the message. Sending it again does not help."),
    ErrorCode.PROVIDER_CONFIG: _(
        "The endpoint refuses messages because of its configuration, or its stored address cannot be decrypted."
    ),
    ErrorCode.PROVIDER_UNMAPPED: _("The endpoint returned a response that no rule explains."),
    ErrorCode.LEASE_EXPIRED: _("The worker of the last attempt was lost. The message may have been delivered."),
    ErrorCode.USER_INACTIVE: _("The user account is inactive."),
    ErrorCode.CANCELLED: _("An operator or the application cancelled the notification."),
    ErrorCode.EXPIRED: _("The notification expired before it could be sent."),
    ErrorCode.ATTEMPTS_EXHAUSTED: _("All allowed attempts were used."),
    ErrorCode.INTERNAL_ERROR: _("An internal error occurred. The worker's log has the details."),
}
"""Meaning by error code, for operators. Codes of custom providers have no entry."""

USER_ERROR_MESSAGES: dict[str, Promise] = ERROR_MESSAGES | {
    ErrorCode.RECIPIENT_MISSING: _("You have no such channel, or the channel is disabled."),
    ErrorCode.USER_INACTIVE: _("Your account is inactive."),
    ErrorCode.PROVIDER_AUTH_FAILED: _("The endpoint rejected the authentication. The bearer token may be wrong."),
    ErrorCode.PROVIDER_CONFIG: _("Your bot or flow refuses messages. Check it, then send a test."),
    ErrorCode.INTERNAL_ERROR: _("An internal error occurred."),
}
"""Meaning by error code, for the user who receives the notification. The HTTP API returns these texts."""

ERROR_REMEDIES: dict[str, Promise] = {
    ErrorCode.PROVIDER_TIMEOUT: _("Check whether the message arrived. If it did not, replay the notification."),
    ErrorCode.PROVIDER_RATE_LIMITED: _("Send fewer messages to this endpoint, then replay the notification."),
    ErrorCode.PROVIDER_5XX: _("Replay the notification after the endpoint has recovered."),
    ErrorCode.NETWORK_ERROR: _(
        "Check the network, DNS and the TLS certificate of the endpoint, then replay the notification."
    ),
    ErrorCode.RECIPIENT_MISSING: _("After the user has an enabled channel, replay the notification."),
    ErrorCode.INVALID_URL: _("Ask the user to enter the address again, then replay the notification."),
    ErrorCode.PROVIDER_AUTH_FAILED: _(
        "Ask the user to enter a valid token. For email, correct the project's mail settings. "
        "Then replay the notification."
    ),
    ErrorCode.PAYLOAD_INVALID: _(
        "Report the message to the team that requested it. A replay sends the same message again."
    ),
    ErrorCode.PROVIDER_CONFIG: _("Ask the user to fix the bot or flow, then replay the notification."),
    ErrorCode.PROVIDER_UNMAPPED: _(
        "Read the response below and report it, so that a rule can be added. Then replay the notification."
    ),
    ErrorCode.LEASE_EXPIRED: _("Check whether the message arrived. If it did not, replay the notification."),
    ErrorCode.USER_INACTIVE: _("After the account is active again, replay the notification."),
    ErrorCode.CANCELLED: _("To send the notification after all, replay it with force."),
    ErrorCode.EXPIRED: _("The page of the channel may explain the delay. Ask the sender to request it again."),
    ErrorCode.ATTEMPTS_EXHAUSTED: _("Replay the notification. A replay starts with all attempts available again."),
    ErrorCode.INTERNAL_ERROR: _("Read the log of the worker named below and fix the cause, then replay."),
}
"""What an operator does about a notification that stopped with this error code."""
