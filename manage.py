#!/usr/bin/env python
"""Django's command line."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "smartmate.settings")
    if sys.argv[1:2] == ["migrate"]:
        os.environ["DATABASE_TIMEOUT"] = "86400"  # an index of a large table takes longer than any other statement
    execute_from_command_line(sys.argv)
