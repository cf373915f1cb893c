"""How much of what is generated or explored a run of the tests covers."""

from __future__ import annotations

import os

FAST = bool(os.environ.get("FAST"))
"""Whether this is `make test-fast`: every test that starts no programs, each with a part of its generated cases."""

PART = 10 if FAST else 1
"""Numbers of generated cases are divided by this."""
