"""One request for a page: the visitor, their rights, their input and the answer. Independent of the pages."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.api.deps import because
from app.domain.entry import NEVER
from app.domain.errors import UnknownJob
from app.domain.events import Origin
from app.domain.keys import RIGHTS, Key, Right, check_reach
from app.ui.forms import Form

if TYPE_CHECKING:
    from app.service.jobs import Job
    from app.service.service import Service
    from app.ui.desk import Desk

SILENT_S = 10.0
"""The silence of the log, in seconds, after which pages say that it is away."""


@dataclass(slots=True)
class Visit:
    """A visitor's request. `token` is their cookie, `key` the live key of their session, `name` what they call
    themselves."""

    desk: "Desk"
    request: Request
    token: str
    new_token: bool
    key: Key | None
    name: str | None
    form: Form = field(default_factory=Form)

    @property
    def service(self) -> "Service":
        return self.desk.service

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    @property
    def partial(self) -> bool:
        """True if htmx asks for a part of a page."""
        headers = self.request.headers
        return "hx-request" in headers and "hx-history-restore-request" not in headers and "hx-boosted" not in headers

    @property
    def signed_in(self) -> bool:
        """True if the visitor may be here now, whatever has become of their key since they came."""
        door = self.desk.door
        return not door.requires_keys if self.key is None else door.known(self.key.id) is not None

    def can(self, right: str) -> bool:
        if not self.signed_in:
            return False
        return self.key is None or Right(right) in RIGHTS[self.key.role]

    @property
    def actor(self) -> str:
        """The visitor's name in the audit."""
        return self.name or (self.key.name if self.key is not None else "anonymous")

    def waits(self, *namespaces: str) -> bool:
        """True if an edit of theirs would wait for a second person."""
        return self.service.policies.waits(namespaces, None if self.key is None else self.key.role.value)

    def opens(self, namespace: str | None) -> bool:
        """True if the visitor's key is for a namespace, or (None) for all of them."""
        return self.key is None or self.key.opens(namespace)

    def check_reach(self, *namespaces: str | None) -> None:
        """Raises Forbidden for namespaces that the visitor's key does not open; None means all of them."""
        check_reach(self.key, *namespaces)

    @property
    def home(self) -> str:
        """The namespace to use if none is named: `default`, or the first that the key opens."""
        return "default" if self.opens("default") or self.key is None else self.key.namespaces[0]

    # -- changes

    def origin(self, reason: str | None, *arguments: object) -> Origin:
        """The origin of a change by the visitor. A form that is sent again is carried out once."""
        origin = Origin(
            actor=self.actor,
            key_id=None if self.key is None else self.key.id,
            role=None if self.key is None else self.key.role.value,
            request_id=self.request.state.request_id,
            client=None if self.request.client is None else self.request.client.host,
            idempotency_key=f"ui-{self.token_mark}-{self.form.mark()}",
        )
        return because(origin, reason, *arguments)

    def again(self, origin: Origin, step: str) -> Origin:
        """The origin of a further step within the same form."""
        return replace(origin, idempotency_key=f"{origin.idempotency_key}-{step}")

    def read(self) -> int:
        """The revision that the form's page showed; a change made since then is not overridden unread."""
        return self.form.number("read", 0)

    def made_id(self, prefix: str, within: str = "") -> str:
        """The id of what this form makes, `within` something that was made before: the same form sent twice finds what
        the first one made."""
        return prefix + hashlib.sha256(f"{self.token}{within}{self.form.mark()}".encode()).hexdigest()[:24]

    def job(self, job_id: str | None) -> "Job | None":
        """The job with this id; None if there is none, or it is no longer kept."""
        try:
            return None if job_id is None else self.service.jobs.job(job_id)
        except UnknownJob:
            return None

    @property
    def token_mark(self) -> str:
        """A name for the visitor in the log's idempotency keys, which gives no access."""
        return hashlib.sha256(self.token.encode()).hexdigest()[:12]

    # -- answers

    def page(
        self, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        text = self.desk.templates.get_template(template).render(
            visit=self,
            csrf_token=self.desk.sessions.csrf(self.token),
            once=secrets.token_urlsafe(9),
            server_state=self._server_state,
            here=self.request.url.path,
            **values,
        )
        return HTMLResponse(text, status_code=status, headers=dict(headers or {}))

    def wait(
        self, job: "Job | None", doing: str, page: str, part: str = "_progress.html", **values: Any
    ) -> Response | None:
        """The page that waits for a running job, or the part of it that htmx asks for. Once the job has ended, None,
        but where a part is asked for, the answer on which htmx loads the whole page."""
        if job is not None and job.outcome == "running":
            return self.page(part if self.partial else page, title=doing, doing=doing, job=job, **values)
        return Response(status_code=204, headers={"HX-Refresh": "true"}) if self.partial else None

    def to(self, path: str, **query: object) -> Response:
        """Redirect to another page, so that reloading repeats nothing."""
        text = urlencode({name: str(value) for name, value in query.items() if value is not None})
        url = f"{path}?{text}" if text else path
        if "hx-request" in self.request.headers:
            return Response(status_code=204, headers={"HX-Redirect": url})
        return RedirectResponse(url, 303)

    def _server_state(self) -> dict[str, Any]:
        """The state of the server, for the head of every page and its banner."""
        status, ledger = self.service.status(), self.service.records.ledger
        return {
            "status": status,
            "off": [name for name, spans in ledger.off.items() if spans and spans[-1][1] == NEVER],
            "pending": sum(all(map(self.opens, each.namespaces)) for each in ledger.approval.pending()),
            "away": status.log_silence_s > SILENT_S,
        }
