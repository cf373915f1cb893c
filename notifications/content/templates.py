"""Templates of messages: `notifications/<kind>/title.txt`, `text.txt` and `html.html` among the project's templates."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.template import Context, TemplateDoesNotExist, TemplateSyntaxError, engines
from django.template.base import Node
from django.template.loader import get_template
from django.utils import translation
from django.utils.translation import gettext

from notifications.content.text import trim
from notifications.exceptions import NotificationError

FOLDER = "notifications"
"""Folder of the kinds among the project's templates."""


class RenderedTexts(NamedTuple):
    """The texts of a kind. A text whose template does not exist is blank."""

    title: str
    text: str
    html: str


class TemplateFailed(NotificationError):
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
    with translation.override(language or settings.LANGUAGE_CODE):
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
    except TemplateSyntaxError:  # rendering it names the line
        pass
    return True


def list_kinds() -> list[str]:
    """Return the kinds that have a template for their text, in the folders of the project and of its apps."""
    return sorted({path.parent.name for folder in _folders() for path in folder.glob("*/text.txt")})


def sample_context(kind: str) -> str:
    """Return the content of `sample.json` beside the templates of a kind: values to try them with. Blank without one.

    Args:
        kind: One of `list_kinds()`.
    """
    samples = (folder / kind / "sample.json" for folder in _folders())
    return next((path.read_text(encoding="utf-8") for path in samples if path.is_file()), "")


def _folders() -> Iterator[Path]:
    for engine in engines.all():
        for folder in engine.template_dirs:
            yield Path(folder) / FOLDER


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
    """Return where and how a template failed."""
    line = getattr(getattr(error, "token", None), "lineno", None) or getattr(error, "lineno", None)
    # Django notes the place of an error within a tag only if its engine is in debug mode.
    for frame, _number in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node) and getattr(node, "token", None):
            token: Any = node.token
            line, path = token.lineno, getattr(node.origin, "template_name", None) or path
    values = {"template": path, "line": line, "error": f"{type(error).__name__}: {error}"}
    if line is None:
        return gettext("the template %(template)s failed: %(error)s") % values
    return gettext("the template %(template)s failed in line %(line)d: %(error)s") % values
