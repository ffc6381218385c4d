"""The pages behind links: HTML without scripts, cookies and anything from elsewhere, in English and Chinese."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from web.dashboard.language import HTML_LANG, choose

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "style.css").read_text("utf-8")
_STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()

HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
                               "base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",  # the address of a link is as good as a key: it is told to nobody
    "cache-control": "no-store",
    "x-robots-tag": "noindex, nofollow",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}  # fmt: skip


@cache
def texts(language: str) -> Mapping[str, str]:
    """All texts of a language, by name."""
    found: dict[str, str] = yaml.safe_load((FOLDER / "catalogue" / f"{language}.yaml").read_text("utf-8"))
    return found


def page(request: Request, template: str, status: int = 200, headers: Mapping[str, str] | None = None,
         **context: object) -> Response:  # fmt: skip
    """A template as the answer to a request, in the language that the browser asks for."""
    language = choose(request.headers.get("accept-language", ""))
    html = _environment().get_template(template).render(
        t=texts(language), lang=HTML_LANG[language], style=Markup(STYLE), **context  # noqa: S704 - a file of ours
    )  # fmt: skip
    said = {"vary": "Accept-Language", "content-language": HTML_LANG[language], **(headers or {})}
    return HTMLResponse(html, status, headers=said)


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)  # fmt: skip
