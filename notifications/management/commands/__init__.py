"""One module per command. `_base` holds what they share: exit codes, errors and output.

A command calls the package that does the work. No package imports this one.
"""
