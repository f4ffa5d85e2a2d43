"""The documentation that ships: Markdown pages in `app/docs`, rendered once and shown at /help without internet
access."""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.ui.desk import HELP, Desk
from app.ui.visit import Visit

FOLDER = Path(__file__).parents[1] / "docs"
ORDER = ("api", "settings", "scope", "editors", "operation", "vllm", "troubleshooting")
DRAWING = {
    "Content-Type": "image/svg+xml; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cache-Control": "private, max-age=3600",
}
"""The headers of a drawing, which brings its own style for light and dark and may do nothing else."""
_LINK = re.compile(r"(?P<page>[a-z]+)\.md(?P<anchor>#[\w-]+)?|(?P<file>[a-z-]+\.svg)|#[\w-]+|https://\S+")


@dataclass(frozen=True, slots=True)
class HelpSection:
    """A heading of the second level."""

    anchor: str
    title: str


@dataclass(frozen=True, slots=True)
class HelpPage:
    """A page of documentation. `lead` is its first paragraph as text, `html` everything below its title."""

    name: str
    title: str
    lead: str
    sections: Sequence[HelpSection]
    anchors: frozenset[str]
    html: Markup


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub builds it, so that links work both there and here."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def rendered(name: str, text: str) -> HelpPage:
    """Render a page. Raises ValueError if it has no title or no lead, if two headings have the same anchor, or if a
    relative link leads out of the documentation."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    headings = list(_headings(tokens))
    first = next((each for each in tokens[3:] if each.type == "inline"), None)
    if not headings or headings[0][0].tag != "h1" or tokens[0] is not headings[0][0] or first is None:
        raise ValueError(f"{name}.md: a page begins with a title and a paragraph that says what it is about")
    anchors = [slug(title) for _, title in headings]
    if len(set(anchors)) < len(anchors):
        raise ValueError(f"{name}.md: two headings have the same anchor")
    for (token, _), anchor in zip(headings, anchors, strict=True):
        token.attrSet("id", anchor)
    for token in _all(tokens):
        _resolve_links(name, token)
    html = markdown.renderer.render(tokens[3:], markdown.options, {})
    return HelpPage(
        name,
        headings[0][1],
        _text(first),
        tuple(HelpSection(slug(title), title) for token, title in headings if token.tag == "h2"),
        frozenset(anchors),
        Markup(_scrolling(html)),
    )


def _scrolling(html: str) -> str:
    """The page's HTML with wide blocks scrolling on their own, by keyboard too. Text in a page cannot look like these
    tags, because it is escaped."""
    html = html.replace("<pre>", '<pre tabindex="0">').replace("</table>", "</table></div>")
    return html.replace("<table>", '<div class="table" tabindex="0"><table>')


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[Token, str]]:
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            yield token, _text(tokens[at + 1])


def _text(inline: Token) -> str:
    return "".join(each.content if each.type != "softbreak" else " " for each in inline.children or ())


def _all(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _all(token.children or ())


def _resolve_links(name: str, token: Token) -> None:
    """Turn links between files into links between pages, and the style of a column's alignment into a class."""
    for attribute in ("href", "src"):
        if attribute not in token.attrs:
            continue
        link = str(token.attrs[attribute])
        match = _LINK.fullmatch(link)
        if match is None:
            raise ValueError(f"{name}.md: {link} is not a page, a drawing or an https:// address")
        if match["page"]:
            token.attrSet(attribute, f"{HELP}/{match['page']}{match['anchor'] or ''}")
        elif match["file"]:
            token.attrSet(attribute, f"{HELP}/{match['file']}")
    if (style := token.attrs.pop("style", None)) is not None and "right" in str(style):
        token.attrJoin("class", "num")


@cache
def read(folder: Path = FOLDER) -> Mapping[str, HelpPage]:
    """All pages, in their listed order. A process renders them once, for all its apps."""
    return {name: rendered(name, (folder / f"{name}.md").read_text(encoding="utf-8")) for name in ORDER}


class Help:
    """The pages under /help, open to everyone who may call the server: without a key from this machine or while the
    server asks for none, otherwise with a key of any role, from a session or as a Bearer token."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._pages = read()
        self._drawings = {path.name: path.read_bytes() for path in FOLDER.glob("*.svg")}

    def routes(self) -> list[BaseRoute]:
        return [
            self._desk.route(HELP, None, get=self._index),
            self._desk.route(f"{HELP}/{{name}}", None, get=self._show),
        ]

    async def _index(self, visit: Visit) -> Response:
        if not self._may_read(visit):
            return self._desk.ask_to_sign_in(visit)
        return visit.page("help.html", title="Help", pages=self._pages, page=None)

    async def _show(self, visit: Visit) -> Response:
        if not self._may_read(visit):
            return self._desk.ask_to_sign_in(visit)
        name = visit.request.path_params["name"]
        if name in self._drawings:
            return Response(self._drawings[name], headers=DRAWING)
        if name not in self._pages:
            raise HTTPException(404, f"There is no page {name!r}: {HELP} lists them.")
        page = self._pages[name]
        return visit.page("help.html", title=page.title, pages=self._pages, page=page)

    def _may_read(self, visit: Visit) -> bool:
        """True if the visitor may read the documentation. Raises Unauthenticated for a Bearer token that is no live
        key."""
        if visit.signed_in or _is_loopback(visit.request.client.host if visit.request.client else ""):
            return True
        scheme, _, text = visit.request.headers.get("authorization", "").partition(" ")
        return scheme.casefold() == "bearer" and bool(text.strip()) and bool(self._desk.door.key(text))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
