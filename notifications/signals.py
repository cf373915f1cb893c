"""What other code may listen for."""

from __future__ import annotations

from django.dispatch import Signal

unmapped_answer = Signal()
"""An endpoint answered with a code that we have no meaning for. Connect your alerts here.

Sent once in each process for a channel and code, outside of any transaction, with `channel`, `code`, `message` (what
the attempt says of it, free of secrets) and `record_id`. A receiver that fails is logged and harms no delivery.
"""
