"""The base of all pages: the service, sessions and templates, and the handling around every request."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.api.gate import Door, check_right
from app.api.metrics import Metrics
from app.domain.errors import Forbidden
from app.domain.keys import Right
from app.service.log_lines import note
from app.service.namespaces import DEFAULT, namespaces
from app.ui import words
from app.ui.assets import Assets
from app.ui.forms import Form
from app.ui.sessions import COOKIE, Sessions
from app.ui.visit import Visit

if TYPE_CHECKING:
    import asyncio

    from app.service.service import Service

HERE, HELP = "/ui", "/help"
COOKIES = {COOKIE: HERE, f"{COOKIE}_help": HELP}
"""Maps the name of a session's cookie to the path below which browsers send it; no other part of the host receives
it."""
Handler = Callable[[Visit], Awaitable[Response]]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""A page loads nothing from elsewhere and runs no inline script: whatever a model or a client wrote remains text."""
UNKEPT = {"Cache-Control": "no-store"}
_HELP = re.compile(r"(?<![\w/])/help/[a-z]+(?:#[a-z0-9_-]+)?")


@cache
def environment(assets: Assets) -> Environment:
    """The template environment. Every value is escaped; a name that a page does not provide is an error, not a gap.

    A process compiles each template once, for all its apps.
    """
    folder = Path(__file__).parent / "templates"
    environment_ = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment_.globals.update(asset=assets.url, words=words, here_root=HERE)
    environment_.filters.update(
        moment=words.moment,
        iso=words.iso,
        day=words.day,
        share=words.share,
        seconds=words.seconds,
        size=words.size,
        linked=linked,
        phase=words.phase,
    )
    return environment_


def linked(text: str) -> Markup:
    """A message in which the addresses of the documentation are links."""
    return Markup(_HELP.sub(r'<a href="\g<0>">\g<0></a>', str(escape(text))))


@dataclass(slots=True)
class Desk:
    """The parts that all pages share. `leaving` is set when the server is told to stop, and ends streams that would not
    end by themselves."""

    service: "Service"
    door: Door
    metrics: Metrics
    sessions: Sessions
    templates: Environment
    leaving: "asyncio.Event"

    def route(
        self,
        path: str,
        right: Right | None,
        get: Handler | None = None,
        post: Handler | None = None,
        *,
        reached: bool = False,
    ) -> Route:
        """The route of a page that needs a right; None for none. POST changes something, and is accepted only from the
        page's own form. Keys for some namespaces are admitted if `reached`: such a page checks the namespaces concerned
        (`Visit.check_reach`)."""
        methods = [name for name, handler in (("GET", get), ("POST", post)) if handler is not None]

        async def endpoint(request: Request) -> Response:
            handler = post if request.method == "POST" else get
            assert handler is not None
            return await self._answer(request, right, handler, reached=reached or right is None)

        return Route(path, endpoint, methods=methods)

    async def _answer(self, request: Request, right: Right | None, handler: Handler, *, reached: bool) -> Response:
        visit = self._visit(request)
        note(actor=visit.actor, key=None if visit.key is None else visit.key.name)
        try:
            address = request.client.host if request.client is not None else ""
            self.door.count(address if visit.key is None else visit.key.id)
            if right is not None:
                if not visit.signed_in:
                    return self.ask_to_sign_in(visit)
                check_right(visit.key, right)
            if not reached:
                visit.check_reach(None)
            if request.method == "POST":
                visit.form = await Form.of(request)
                self._check_form(visit)
            response = await handler(visit)
        except Exception as error:
            response = self.failed(visit, error)
        return self._finished(visit, response)

    def _finished(self, visit: Visit, response: Response) -> Response:
        for name, value in (UNKEPT | HEADERS).items():
            response.headers.setdefault(name, value)
        if visit.new_token:
            self.give_cookie(visit, response, visit.token)
        return response

    async def error(self, request: Request, error: Exception) -> Response:
        """The answer for an address that no page has."""
        visit = self._visit(request)
        return self._finished(visit, self.failed(visit, error))

    def _visit(self, request: Request) -> Visit:
        token = next((request.cookies[name] for name in COOKIES if name in request.cookies), "")
        new = not 20 <= len(token) <= 100 or not token.isascii()
        token = self.sessions.new_token() if new else token
        session = self.sessions.find(token)
        key = None if session is None or session.key_id is None else self.door.known(session.key_id)
        return Visit(self, request, token, new, key, None if session is None else session.name)

    def _check_form(self, visit: Visit) -> None:
        """Raises Forbidden for a form that another site made."""
        if visit.request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Forbidden("The form came from another site, so nothing was changed: open the page here and send it.")
        if visit.new_token or not self.sessions.is_csrf(visit.token, visit.form.get("csrf")):
            raise Forbidden(
                "This page is older than the server's last start, or came from elsewhere, so nothing was changed: "
                "go back, reload the page and send the form again. See /help/troubleshooting#signing-in-does-not-last."
            )

    def give_cookie(self, visit: Visit, response: Response, token: str) -> None:
        """Set the session's cookies. Browsers send them only to the pages, never with another site's request, and hide
        them from scripts. If the browser's Origin says TLS, they are sent over TLS only."""
        secure = visit.request.headers.get("origin", "").startswith("https://") or visit.request.url.scheme == "https"
        for name, path in COOKIES.items():
            response.set_cookie(name, token, path=path, httponly=True, samesite="strict", secure=secure)

    def ask_to_sign_in(self, visit: Visit) -> Response:
        target = visit.request.url.path
        if visit.request.method == "GET" and not visit.partial:
            if visit.request.url.query:
                target = f"{target}?{visit.request.url.query}"
            return visit.to(f"{HERE}/sign-in", next=target)
        return visit.to(f"{HERE}/sign-in")

    def failed(self, visit: Visit, error: Exception) -> Response:
        """An error as a page; for htmx as a part of one, which it shows in place of the answer."""
        problem = problem_of(error)
        came = urlsplit(visit.request.headers.get("referer", ""))
        back = f"{came.path}?{came.query}" if came.path.startswith((f"{HERE}/", f"{HELP}/")) else None
        template = "_problem.html" if visit.partial else "problem.html"
        return visit.page(template, status=problem["status"], problem=problem, back=back, title=problem["title"])

    # -- queries of the pages

    def known_namespaces(self, visit: Visit) -> list[str]:
        """The names of the namespaces that the visitor's key opens, `default` first."""
        spaces = namespaces(self.service.records.ledger, self.service.configured)
        names = [each.name for each in spaces if visit.opens(each.name)]
        return sorted(names, key=lambda name: name != DEFAULT)
