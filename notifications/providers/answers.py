"""Deprecated import path of notifications.providers.response_rules."""

from notifications._moved import forward

RENAMED = {
    "Answer": "HttpResponse",
    "BUSY": "RATE_LIMITED",
    "TROUBLE": "SERVER_ERROR",
    "CONTENT": "MESSAGE_REFUSED",
    "CONFIG": "ENDPOINT_CONFIG",
    "AUTH": "AUTH_FAILED",
    "UNKNOWN": "OUTCOME_UNKNOWN",
    "UNMAPPED": "UNMAPPED_CODE",
    "UNMAPPED_ATTEMPTS": "UNMAPPED_MAX_ATTEMPTS",
    "STATUSES": "STATUS_RULES",
    "EXCERPT_LIMIT": "MAX_EXCERPT_LENGTH",
    "Code": "CodeRule",
    "Status": "StatusRule",
    "Table": "RuleTable",
    "Verdict": "RuleMatch",
    "judge": "interpret_response",
    "code_of": "failure_code",
}

__getattr__ = forward(__name__, "notifications.providers.response_rules", renamed=RENAMED)
