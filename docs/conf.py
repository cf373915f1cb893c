"""The configuration of the documentation site: `make docs` builds it with Sphinx."""

project = "SmartMate Notifications"
author = "SmartMate Notifications contributors"
copyright = "2026, SmartMate Notifications contributors"  # noqa: A001  Sphinx reads this name

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
myst_heading_anchors = 4  # links to headings are written as on a code host, and are checked
myst_enable_extensions = ["colon_fence"]
