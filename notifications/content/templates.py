"""Templates of messages: `notifications/<kind>/title.txt`, `text.txt` and `html.html` among the project's templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.template import Context, TemplateDoesNotExist
from django.template.loader import get_template
from django.utils import translation
from django.utils.translation import gettext

from notifications.content.text import trim

FOLDER = "notifications"
"""Folder of the kinds among the project's templates."""


class RenderedTexts(NamedTuple):
    """The texts of a kind. A text whose template does not exist is blank."""

    title: str
    text: str
    html: str


class TemplateFailed(Exception):
    """A template could not be rendered. The text names the template and the line."""


def render_kind(kind: str, context: Mapping[str, Any], language: str) -> RenderedTexts:
    """Return the texts of a kind.

    Args:
        kind: Name of the folder with the templates.
        context: Their values.
        language: Language in which they are rendered; blank for the project's.

    Raises:
        TemplateFailed: A template is wrong, or raised an exception.
    """
    with translation.override(language or None) if language else translation.override(translation.get_language()):
        title = _render(kind, "title.txt", context, escape=False)
        text = _render(kind, "text.txt", context, escape=False)
        html = _render(kind, "html.html", context, escape=True)
    return RenderedTexts(" ".join(title.split()), trim(text), trim(html))


def has_templates(kind: str) -> bool:
    """Return whether the project has a template for the text of a kind.

    Args:
        kind: Name of the folder.
    """
    try:
        get_template(f"{FOLDER}/{kind}/text.txt")
    except TemplateDoesNotExist:
        return False
    return True


def _render(kind: str, name: str, context: Mapping[str, Any], *, escape: bool) -> str:
    path = f"{FOLDER}/{kind}/{name}"
    try:
        try:
            template: Any = get_template(path)
        except TemplateDoesNotExist as missing:
            if missing.args[:1] == (path,):
                return ""
            raise
        # Only a mail's HTML is escaped. Templates of Jinja2 escape by the name of the file.
        if hasattr(template, "template") and hasattr(template.template, "nodelist"):
            return str(template.template.render(Context(dict(context), autoescape=escape)))
        return str(template.render(dict(context)))
    except Exception as error:  # a template calls any code of the project
        raise TemplateFailed(_describe(error, path)) from error


def _describe(error: Exception, path: str) -> str:
    """Return where and how a template failed. The text of a foreign exception may have values of the context."""
    node = getattr(error, "token", None) or getattr(getattr(error, "_culprit_node", None), "token", None)
    line = getattr(node, "lineno", None) or getattr(error, "lineno", None)
    values = {"template": path, "line": line, "error": f"{type(error).__name__}: {error}"}
    if line is None:
        return gettext("the template %(template)s failed: %(error)s") % values
    return gettext("the template %(template)s failed in line %(line)d: %(error)s") % values
