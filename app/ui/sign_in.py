"""Signing in and out: a key is presented once and not stored; a session remembers its id."""

from starlette.responses import Response
from starlette.routing import Route

from app.domain.errors import ErrataError, InvalidRequest
from app.service.keyring import MAX_NAME_CHARS
from app.ui.desk import HELP, HERE, Desk
from app.ui.visit import Visit


def routes(desk: Desk) -> list[Route]:
    return [
        desk.route("/sign-in", None, get=show, post=sign_in),
        desk.route("/sign-out", None, post=sign_out),
    ]


async def show(visit: Visit) -> Response:
    """Show the sign-in form. A link from another site does not send the cookie, which is SameSite=Strict; a visitor who
    is signed in all the same is recognised by a second request from here."""
    if visit.request.headers.get("sec-fetch-site") == "cross-site" and "again" not in visit.query:
        return visit.page("bounce.html", title="One moment", target=_target(visit.query.get("next", "")))
    if visit.key is not None:
        return visit.to(_target(visit.query.get("next", "")))
    return _form(visit, visit.query.get("next", ""))


def _form(visit: Visit, target: str, problem: str | None = None, name: str = "") -> Response:
    return visit.page(
        "sign_in.html",
        status=200 if problem is None else 422,
        title="Sign in",
        target=target,
        problem=problem,
        name=name[:MAX_NAME_CHARS],
        most_name_chars=MAX_NAME_CHARS,
    )


async def sign_in(visit: Visit) -> Response:
    """Sign in, with a new cookie each time: one that was set before, by anybody, never becomes a session."""
    desk, target, name = visit.desk, visit.form.get("next"), visit.form.get("name")
    try:
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise InvalidRequest(f"Your name must be one line of at most {MAX_NAME_CHARS} characters.")
        if not name and not desk.door.requires_keys:
            raise InvalidRequest("Your name is empty: write the name that your changes are to have in the audit.")
        key = desk.door.key(visit.form.get("key")) if desk.door.requires_keys else None
    except ErrataError as error:
        desk.door.count(f"refused {visit.request.client.host if visit.request.client else ''}")
        return _form(visit, target, error.message, name)
    desk.sessions.end(visit.token)
    response = visit.to(_target(target))
    visit.new_token = False
    desk.give_cookie(visit, response, desk.sessions.begin(None if key is None else key.id, name or None))
    return response


async def sign_out(visit: Visit) -> Response:
    visit.desk.sessions.end(visit.token)
    response = visit.to(f"{HERE}/sign-in")
    visit.desk.give_cookie(visit, response, visit.desk.sessions.new_token())
    return response


def _target(given: str) -> str:
    """The page to continue at after sign-in; addresses of other sites are ignored."""
    plain = (
        given.startswith((f"{HERE}/", f"{HELP}/"))
        and given.isprintable()
        and not any(bad in given for bad in ("..", "\\"))
    )
    return given if plain else f"{HERE}/ask"
