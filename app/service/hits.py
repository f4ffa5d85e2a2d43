"""Counts of each edit's answers, and of its targets that were not given although the prompt was in its scope.

Each server counts on its own, keeps its counts beside the log, and shows the sum over all servers. Hits are not events:
nothing depends on them, and an event for each answer would drown everything else in the log. Each server writes under a
name of its own, `hits-...`, in the same place as snapshots: in the SQLite file, or in the Redis hash `<prefix>:kept`. A
server that is killed loses the counts since its last write, `Hits.period_s` seconds at most. Hits are counted by
day (UTC), too, for the last DAYS days.
"""

import asyncio
import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from threading import Lock

from app.domain.errors import ErrataError
from app.store.base import Log
from app.store.upkeep import HITS_PREFIX

PREFIX = HITS_PREFIX
PERIOD_S = 10.0
"""The interval at which up to FEW servers write their counts, and read those of the others, in seconds."""
FEW = 10
STALE_S = 3600.0
"""A server that has not written for this long, in seconds, is gone: its counts are taken over, or names would pile
up."""
SIGN_S = STALE_S / 6
"""The interval at which a server writes even without news, in seconds, so that it is not taken for gone. However many
servers there are, none exchanges counts more rarely."""
DAY_S = 86_400.0
DAYS = 90
"""The number of days, today included, whose hits are kept by day."""
MOST_DAILY = 100_000
"""The maximum number of counts by edit and day that a server keeps, because all are written at each interval. The
earliest days are dropped first."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """The counts of one server by edit. `daily` counts hits by edit and day, in days since 1970. `not_given` counts
    answers in an edit's scope that did not say its target. `adopted` lists names whose counts are included in these and
    must not be counted again."""

    hits: Counter[str] = field(default_factory=Counter)
    daily: Counter[tuple[str, int]] = field(default_factory=Counter)
    not_given: Counter[str] = field(default_factory=Counter)
    last_s: dict[str, float] = field(default_factory=dict)
    at_s: float = 0.0
    adopted: tuple[str, ...] = ()

    def add(self, other: "Counts", sign: int = 1) -> None:
        for edit_id, count in other.hits.items():
            self.hits[edit_id] += sign * count
        for place, count in other.daily.items():
            self.daily[place] += sign * count
        for edit_id, count in other.not_given.items():
            self.not_given[edit_id] += sign * count
        for edit_id, at_s in other.last_s.items():
            self.last_s[edit_id] = max(at_s, self.last_s.get(edit_id, 0.0))

    def dumped(self) -> bytes:
        hits = {edit_id: [count, self.last_s.get(edit_id)] for edit_id, count in self.hits.items()}
        daily: dict[str, dict[int, int]] = {}
        for (edit_id, day), count in self.daily.items():
            daily.setdefault(edit_id, {})[day] = count
        record = {"at_s": self.at_s, "adopted": list(self.adopted), "hits": hits, "daily": daily}
        return json.dumps(record | {"not_given": dict(self.not_given)}, separators=(",", ":")).encode()

    def bound(self, today: int) -> None:
        """Drop the hits by day that are older than DAYS, and the earliest days of those beyond MOST_DAILY."""
        first = today - DAYS + 1
        if len(self.daily) > MOST_DAILY:  # a day is dropped as a whole, but never the present one
            first = min(today, max(first, sorted(day for _, day in self.daily)[-MOST_DAILY - 1] + 1))
        self.daily = Counter({place: count for place, count in self.daily.items() if place[1] >= first})


def read_counts(data: bytes | None) -> Counts | None:
    """Counts from their bytes; None for bytes that are no counts: a foreign or damaged record costs counts and nothing
    else."""
    try:
        content = json.loads(data or b"")
        hits, last_s = Counter[str](), dict[str, float]()
        for edit_id, (count, at_s) in content["hits"].items():
            hits[edit_id] = int(count)
            if at_s is not None:
                last_s[edit_id] = float(at_s)
        missed = Counter({edit_id: int(count) for edit_id, count in content.get("not_given", {}).items()})
        daily = Counter(
            {
                (edit_id, int(day)): int(count)
                for edit_id, days in content.get("daily", {}).items()
                for day, count in days.items()
            }
        )
        at_s, adopted = float(content["at_s"]), tuple(map(str, content["adopted"]))
        return Counts(hits, daily, missed, last_s, at_s, adopted)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class Hits:
    """The counts of this server and of the others. Counting happens on the event loop; `exchange` may run on a
    thread."""

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._name = f"{PREFIX}{uuid.uuid4().hex[:16]}"
        self._own = Counts()
        self._written: Counts | None = None
        """The counts stored under this server's name beside the log."""
        self._others = Counts()
        self._servers = 1
        """The number of servers whose counts were found beside the log."""
        self._bounded_on = 0
        """The day on which counts by day were last dropped."""
        self._lock = Lock()

    def count(self, edit_ids: Iterable[str], now_s: float) -> None:
        ids = list(edit_ids)
        with self._lock:
            self._own.hits.update(ids)
            self._own.daily.update((edit_id, day_of(now_s)) for edit_id in ids)
            self._own.last_s.update(dict.fromkeys(ids, now_s))

    def count_not_given(self, edit_ids: Iterable[str]) -> None:
        with self._lock:
            self._own.not_given.update(edit_ids)

    def of(self, edit_id: str) -> int:
        """Hits over all servers, as far as they have reported."""
        return self._own.hits[edit_id] + self._others.hits[edit_id]

    def not_given(self, edit_id: str) -> int:
        """Answers in the edit's scope that did not say its target, over all servers, as far as they have reported."""
        return self._own.not_given[edit_id] + self._others.not_given[edit_id]

    def by_day(self, edit_id: str) -> list[int]:
        """Hits on each of the last DAYS days, today last, over all servers, as far as they have reported."""
        today = day_of(self._clock())
        places = [(edit_id, day) for day in range(today - DAYS + 1, today + 1)]
        return [self._own.daily[place] + self._others.daily[place] for place in places]

    @property
    def now_s(self) -> float:
        """The present time by the clock that hits are counted by, as Unix time in seconds."""
        return self._clock()

    def last_s(self, edit_id: str) -> float | None:
        times = [each.last_s[edit_id] for each in (self._own, self._others) if edit_id in each.last_s]
        return max(times, default=None)

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self.exchange)
            await asyncio.sleep(self.period_s)

    @property
    def period_s(self) -> float:
        """The interval between two exchanges. It grows with the number of servers, since each reads the counts of all:
        at a fixed interval the reads would grow with the square of their number."""
        return min(SIGN_S, PERIOD_S * max(1.0, self._servers / FEW))

    def exchange(self) -> None:
        """Write this server's new counts and read the others'. An error is logged and the exchange is retried: it costs
        counts."""
        try:
            self._exchange()
        except ErrataError as error:
            _log.info("Hits were not exchanged, which is tried again: %s", error.message)
        except Exception:
            _log.exception("Hits were not exchanged, which is tried again")

    def _exchange(self) -> None:
        counts_by_server = {
            name: read_counts(self._log.get(name)) for name in self._log.names() if name.startswith(PREFIX)
        }
        self._servers = len(counts_by_server)
        theirs = {
            name: counts for name, counts in counts_by_server.items() if counts is not None and name != self._name
        }
        adopted = {name for counts in theirs.values() for name in counts.adopted}
        if self._written is not None and (self._name not in counts_by_server or self._name in adopted):
            self._begin_anew()
        mine = set(self._written.adopted) if self._written is not None else set[str]()  # in case dropping has failed
        adopted |= mine
        others = {name: counts for name, counts in theirs.items() if name not in adopted}
        now_s = self._clock()
        stale = {name for name, counts in others.items() if counts.at_s < now_s - STALE_S}
        if not all(self._name < name for name in others.keys() - stale):
            stale = set()  # one of the other servers takes them over
        there, gone = Counts(), Counts()
        for name, counts in others.items():
            (gone if name in stale else there).add(counts)
        taken_over = (
            stale | mine | {each for name in stale for each in others[name].adopted}
        ) & counts_by_server.keys()
        with self._lock:
            own = replace(
                self._own,
                hits=Counter(self._own.hits),
                daily=Counter(self._own.daily),
                not_given=Counter(self._own.not_given),
                last_s=dict(self._own.last_s),
                at_s=now_s,
                adopted=tuple(sorted(taken_over)),
            )
        own.add(gone)
        today = day_of(now_s)
        if full := today != self._bounded_on or len(own.daily) > MOST_DAILY:
            own.bound(today)
            self._bounded_on = today
        if self._is_new(own):
            self._log.put(self._name, own.dumped())
            self._written = own
        with self._lock:
            self._own.add(gone)
            if full:
                self._own.bound(today)
            self._others = there
        self._log.drop(sorted(taken_over))

    def _is_new(self, own: Counts) -> bool:
        """True if there is anything to write; a server that counted nothing writes nothing."""
        if self._written is None:
            return bool(own.hits or own.not_given)
        due = own.at_s - self._written.at_s >= SIGN_S
        counts = (own.hits, own.not_given, own.adopted)
        return due or counts != (self._written.hits, self._written.not_given, self._written.adopted)

    def _begin_anew(self) -> None:
        """Start under a new name, with the counts since the last write: another server has taken over the earlier
        ones."""
        assert self._written is not None
        with self._lock:
            self._own.add(self._written, sign=-1)
            self._own.hits, self._own.not_given = +self._own.hits, +self._own.not_given
            self._own.daily = +self._own.daily
        self._name, self._written = f"{PREFIX}{uuid.uuid4().hex[:16]}", None


def day_of(at_s: float) -> int:
    """The day (UTC) of a Unix time, in days since 1970."""
    return int(at_s // DAY_S)
