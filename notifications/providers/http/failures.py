"""Results for exceptions of the network."""

from __future__ import annotations

from ssl import SSLError

from notifications.providers.base import SendResult
from notifications.providers.http.proxy import ProxyRefused
from notifications.providers.http.ssrf_guard import AddressRefused
from notifications.states import ErrorCode, Outcome

_MAX_CAUSES = 20


def network_failure_result(error: Exception) -> SendResult:
    """Return the temporary failure for an exception of the network or TLS.

    The text of the exception is not used, because it contains the whole address, which is a secret.

    Args:
        error: An exception of socket, ssl, http.client or smtplib.
    """
    causes = _find_causes(error)
    if any(isinstance(cause, AddressRefused) for cause in causes):
        return _temporary_failure(ErrorCode.NETWORK_ERROR, "the host resolves to an address that is not public")
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return _temporary_failure(ErrorCode.PROVIDER_TIMEOUT, "no response in time")
    if refused := next((cause for cause in causes if isinstance(cause, ProxyRefused)), None):
        return _temporary_failure(ErrorCode.NETWORK_ERROR, f"the HTTP proxy refused the connection (status {refused})")
    if any(isinstance(cause, SSLError) for cause in causes):
        return _temporary_failure(ErrorCode.NETWORK_ERROR, "TLS failed")
    return _temporary_failure(ErrorCode.NETWORK_ERROR, f"network error ({type(causes[-1]).__name__})")


def _temporary_failure(code: ErrorCode, text: str) -> SendResult:
    return SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code=code, error_message=text)


def _find_causes(error: BaseException) -> list[BaseException]:
    """Return the error and the exceptions it wraps: as cause, context or argument."""
    causes: list[BaseException] = []
    queue: list[object] = [error]
    while queue and len(causes) < _MAX_CAUSES:
        item = queue.pop(0)
        if isinstance(item, BaseException) and item not in causes:
            causes.append(item)
            queue += [item.__cause__, item.__context__, *item.args]
    return causes
