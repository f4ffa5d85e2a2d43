"""Visitors' sessions, kept on the server and found by a cookie, and tokens against forged forms. Independent of the
pages."""

import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

COOKIE = "errata_session"
MOST = 10_000
"""The most sessions kept; beyond it the least recently used one ends."""
IDLE_S = 12 * 3600.0
LONGEST_S = 7 * 86400.0


@dataclass(slots=True)
class Session:
    """A session. `key_id` is the id of the key presented at sign-in; `name` is what the visitor calls themselves."""

    key_id: str | None
    name: str | None
    began_s: float
    used_s: float = field(default=0.0)


class Sessions:
    """The sessions in this server's memory; a restart signs everybody out. The keys themselves are not kept."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def new_token(self) -> str:
        """A token for a visitor's cookie. It names a session only once one has begun."""
        return secrets.token_urlsafe(32)

    def begin(self, key_id: str | None, name: str | None) -> str:
        """Begin a session; returns its token, which is never one that a visitor brought along."""
        token, now_s = self.new_token(), time.monotonic()
        self._sessions[token] = Session(key_id, name, now_s, now_s)
        if len(self._sessions) > MOST:
            self._sessions.popitem(last=False)
        return token

    def find(self, token: str) -> Session | None:
        session, now_s = self._sessions.get(token), time.monotonic()
        if session is None:
            return None
        if now_s - session.used_s > IDLE_S or now_s - session.began_s > LONGEST_S:
            self.end(token)
            return None
        session.used_s = now_s
        self._sessions.move_to_end(token)
        return session

    def end(self, token: str) -> None:
        self._sessions.pop(token, None)

    def csrf(self, token: str) -> str:
        """The token that a form must contain to be accepted from the visitor with this cookie."""
        return hmac.new(self._secret, token.encode(), "sha256").hexdigest()

    def is_csrf(self, token: str, given: str) -> bool:
        return hmac.compare_digest(self.csrf(token).encode(), given.encode(errors="surrogatepass"))
