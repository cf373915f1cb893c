"""The management commands, in `commands`.

The package reads arguments and prints results. The work itself is in the packages below it. No package imports it.
"""
