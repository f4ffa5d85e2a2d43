"""Pins: the edition, and the revision, to which a request is pinned."""

from collections.abc import Collection, Iterable
from weakref import WeakSet

from app.domain.errors import InvalidRequest, RevisionAhead, RevisionGone
from app.domain.generation import GenerationParameters
from app.engine.editions import Edition
from app.service.records import Records

MIN_REVISION_TIMEOUT_S = 5.0


class Pins:
    """Editions by namespace and revision. One object for each set of live edits, so that it is compiled once."""

    def __init__(self, records: Records, history_revisions: int) -> None:
        self._records = records
        self._history_revisions = history_revisions
        self._cached: dict[str, Edition] = {}
        self._off: dict[str, Edition] = {}
        self._compiled: WeakSet[Edition] = WeakSet()

    def forget(self) -> None:
        """Drop everything, for a log whose history was replaced: its revisions have lost their meaning."""
        self._cached.clear()
        self._off.clear()

    def in_use(self, edit_ids: Collection[str]) -> set[str]:
        """The edits, by the ids of their fits, that a request or trial under way may still see."""
        last_change = self._records.ledger.last_change
        for kept in (self._cached, self._off):
            for name in [name for name, each in kept.items() if each.revision != last_change(name)]:
                del kept[name]
        return {edit_id for edition in self._compiled for edit_id in set(edition.edit_ids).intersection(edit_ids)}

    def _edition(self, namespace: str, revision: int, fit_ids: Iterable[str]) -> Edition:
        edition = Edition(namespace, revision, tuple(fit_ids))
        self._compiled.add(edition)
        return edition

    @property
    def oldest(self) -> int:
        """The oldest revision that a request may ask for."""
        return max(0, self._records.revision - self._history_revisions)

    def current(self, namespace: str) -> Edition:
        ledger = self._records.ledger
        change = ledger.last_change(namespace)
        cached = self._cached.get(namespace)
        if cached is None or cached.revision != change:
            cached = self._edition(namespace, change, ledger.live_fits(namespace))
            if cached.edit_ids or namespace in self._cached:
                self._cached[namespace] = cached  # invented names of empty namespaces are not kept
        return cached

    def live_edition(self, namespace: str) -> Edition:
        """The live edits regardless of the edit switches, since a new edit must be compatible with them."""
        current = self.current(namespace)
        if current.edit_ids or self._records.ledger.switched_on(namespace):
            return current
        off = self._off.get(namespace)
        if off is None or off.revision != current.revision:
            off = self._edition(namespace, current.revision, self._records.ledger.unswitched_fits(namespace))
            self._off[namespace] = off
        return off

    async def pin(self, parameters: GenerationParameters) -> tuple[Edition, int]:
        """The edition that a request sees, and the revision that its answer names. Raises RevisionGone, RevisionAhead,
        UnknownEdit."""
        wanted, least = parameters.revision, parameters.min_revision
        if wanted is not None and least is not None and wanted < least:
            raise InvalidRequest("`revision` is older than `min_revision`: leave one of them out.")
        patience_s = min(MIN_REVISION_TIMEOUT_S, parameters.timeout_s or MIN_REVISION_TIMEOUT_S)
        if least is not None and not await self._records.wait_for(least, patience_s):
            raise RevisionAhead(
                f"Revision {least} was not applied here within {patience_s:g} s; "
                f"this server is at {self._records.revision}. See /help/operation#several-servers.",
                revision=self._records.revision,
                retry_after_s=1,
            )
        ledger = self._records.ledger
        if wanted is not None and wanted > ledger.revision:
            raise InvalidRequest(f"`revision` {wanted} does not exist yet: the newest is {ledger.revision}.")
        if wanted is not None and wanted < self.oldest:
            raise RevisionGone(
                f"Revision {wanted} is no longer kept: the oldest is {self.oldest}. See /help/api#asking.",
                oldest=self.oldest,
            )
        revision = ledger.revision if wanted is None else wanted
        namespace = parameters.namespace
        if parameters.edits == "off":
            return Edition(namespace, revision, ()), revision
        if wanted is None or wanted >= ledger.last_change(namespace):
            edition = self.current(namespace)
        else:
            edition = self._edition(namespace, wanted, ledger.live_fits(namespace, wanted))
        if parameters.exclude:
            for edit_id in parameters.exclude:
                ledger.entry(edit_id)
            edition = edition.without(frozenset(parameters.exclude))
        return edition, revision
