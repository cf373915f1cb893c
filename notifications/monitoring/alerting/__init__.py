"""Alerts to operators and mails to channel owners: rules, messages, receivers, dispatch.

`rules` says what needs attention, `dispatcher` sends each alert once per repeat interval, `receivers` are the ways
to a person. The package makes no judgement of its own: it presents `monitoring.conditions`.
"""
