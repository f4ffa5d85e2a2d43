"""A browser without scripts, styles or pictures: it follows links, keeps cookies and sends forms as they stand."""

import asyncio
import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx

from app.api.app import create_app
from app.ui.app import pages
from tests.api.fake_service import FakeService

BASE = "http://errata"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


class Forms(HTMLParser):
    """The forms of a page with what is filled in: action -> (name, value) pairs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[tuple[str, str]]] = {}
        self._now: list[tuple[str, str]] | None = None
        self._area: str | None = None
        self._select: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        name, value = has.get("name") or "", has.get("value") or ""
        if tag == "form":
            self._now = self.found.setdefault(has.get("action") or "", [])
        if self._now is None:
            return
        if tag == "input" and name and (has.get("type") not in ("checkbox", "radio") or "checked" in has):
            self._now.append((name, value))
        elif tag == "textarea":
            self._area = name
            self._now.append((name, ""))
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in has:
            self._now.append((self._select, value))

    def handle_data(self, data: str) -> None:
        if self._area is not None and self._now is not None:
            self._now[-1] = (self._area, self._now[-1][1] + data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._now = None
        elif tag == "textarea":
            self._area = None
        elif tag == "select":
            self._select = None


class Visitor:
    """`headers` go with every request."""

    def __init__(self, service: FakeService, rate_limit: str | None = None, app: Any = None) -> None:
        self.service = service
        self.app = app or create_app(service, rate_limit=rate_limit, pages=pages, allowed_hosts=["errata"])  # type: ignore[arg-type]
        self.cookies = httpx.Cookies()
        self.headers = dict(SAME_SITE)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("10.1.2.3", 4567))
            async with httpx.AsyncClient(transport=transport, base_url=BASE, cookies=self.cookies) as client:
                headers = {**self.headers, **more.pop("headers", {})}
                response = await client.request(method, path, headers=headers, **more)
                self.cookies = client.cookies
                async with asyncio.timeout(60):  # what a form has set off goes on in a job of this loop
                    while asyncio.all_tasks() - {asyncio.current_task()}:
                        await asyncio.sleep(0.01)
                return response

        return asyncio.run(call())

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Follows redirects within the pages."""
        response = self.request("GET", path, **more)
        while response.status_code in (303, 307):
            response = self.request("GET", str(httpx.URL(f"{BASE}{path}").join(response.headers["location"])))
        return response

    def send(self, path: str, to: str | None = None, /, *, follow: bool = True, **fields: Any) -> httpx.Response:
        """The form of a page that posts to `to` (the page itself if left out), with these fields changed."""
        form = Forms(self.get(path).text).found[to or path]
        return self.post(to or path, form, follow=follow, **fields)

    def post(self, to: str, form: list[tuple[str, str]], /, *, follow: bool = True, **fields: Any) -> httpx.Response:
        pairs = [(name, value) for name, value in form if name not in fields]
        for name, value in fields.items():
            pairs += [(name, each) for each in (value if isinstance(value, list) else [value])]
        content = httpx.QueryParams(pairs)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = self.request("POST", to, content=str(content).encode(), headers=headers)
        if follow and response.status_code == 303:
            return self.get(response.headers["location"])
        return response

    def heard(self, until: str, since: int = 0) -> str:
        """The events of the stream of changes, up to this text."""

        async def listen() -> str:
            self.service.records._changed = asyncio.Event()  # the one before may belong to the loop of another request
            found: list[bytes] = []
            done, begun = asyncio.Event(), False

            async def receive() -> dict[str, object]:
                nonlocal begun
                if not begun:
                    begun = True
                    return {"type": "http.request", "body": b""}
                await done.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict[str, object]) -> None:
                body = message.get("body", b"")
                assert isinstance(body, bytes)
                found.append(body)
                if until.encode() in body:
                    done.set()

            cookies = "; ".join(f"{each.name}={each.value}" for each in self.cookies.jar)
            scope = {
                "type": "http", "method": "GET", "path": "/ui/changes", "raw_path": b"/ui/changes", "root_path": "",
                "query_string": f"since={since}".encode(), "client": ("10.1.2.3", 1), "server": ("errata", 80),
                "headers": [(b"host", b"localhost"), (b"cookie", cookies.encode())],
                "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
            }  # fmt: skip
            async with asyncio.timeout(60):
                await self.app(scope, receive, send)
            return b"".join(found).decode()

        return asyncio.run(listen())

    def sign_in(self, key: str, **fields: Any) -> httpx.Response:
        return self.send("/ui/sign-in", key=key, **fields)


def text_of(response: httpx.Response) -> str:
    """The text of a page as a reader sees it."""
    body = response.text.partition("<main")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())
