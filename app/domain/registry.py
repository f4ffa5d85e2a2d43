"""The part of the ledger that is not edits: keys, namespaces that were set up, and webhooks."""

from dataclasses import replace

from app.domain.errors import StateConflict, StoreCorrupt, UnknownKey, UnknownWebhook
from app.domain.events import Event, KeyCreated, KeyRevoked, NamespaceSet, WebhookRemoved, WebhookSet
from app.domain.keys import Key, Role
from app.domain.webhooks import Webhook


class Registry:
    """Only the ledger's `apply` changes it."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        """Every key ever created. Once there is one, a key is asked for: with all revoked, nobody comes in."""
        self.described: dict[str, str] = {}
        """Namespaces that were set up -> what they are for."""
        self.webhooks: dict[str, Webhook] = {}

    # -- checks: each raises what `apply` would raise

    def check_revoke(self, key_id: str) -> Key:
        """The key, which may be revoked. Raises UnknownKey or StateConflict otherwise."""
        if key_id not in self.keys:
            raise UnknownKey(f"No key has the id {key_id!r}: `errata keys list` shows the ids.")
        if self.keys[key_id].revoked_at_s is not None:
            raise StateConflict(f"The key {key_id} is revoked already.")
        return self.keys[key_id]

    def check_key_name(self, name: str) -> None:
        """Raises StateConflict for a name that another key has, or had: the audit could not tell the two apart."""
        same = [key for key in self.keys.values() if key.name.casefold() == name.casefold()]
        if same:
            raise StateConflict(
                f"The key {same[0].id} is named {same[0].name!r} already, and names are unique, those of revoked keys "
                f"included: take another, such as {name + '-2'!r}."
            )

    def check_webhook(self, hook_id: str) -> Webhook:
        """The webhook. Raises UnknownWebhook."""
        if hook_id not in self.webhooks:
            raise UnknownWebhook(f"No webhook has the id {hook_id!r}: `errata webhooks list` shows the ids.")
        return self.webhooks[hook_id]

    # -- folding

    def _enroll(self, event: Event) -> None:
        match event:
            case KeyCreated():
                self._add_key(event)
            case KeyRevoked(key_id=key_id):
                self.keys[key_id] = replace(self.check_revoke(key_id), revoked_at_s=event.at_s)
            case NamespaceSet(namespace=namespace, description=description):
                self.described[namespace] = description
            case WebhookSet():
                if event.hook_id in self.webhooks:
                    raise StateConflict(f"The webhook {event.hook_id} is in the log already.")
                self.webhooks[event.hook_id] = Webhook(
                    id=event.hook_id,
                    url=event.url,
                    kinds=event.kinds,
                    namespaces=event.namespaces,
                    created_at_s=event.at_s,
                    since=event.revision,
                )
            case WebhookRemoved(hook_id=hook_id):
                self.check_webhook(hook_id)
                del self.webhooks[hook_id]
            case _:
                raise StoreCorrupt(f"Event {event.revision} is of the unknown kind {type(event).__name__}.")

    def _add_key(self, event: KeyCreated) -> None:
        if event.key_id in self.keys:
            raise StateConflict(f"The key {event.key_id} is in the log already.")
        if event.role not in set(Role):
            raise StoreCorrupt(f"The key {event.key_id} has the role {event.role!r}, which this version does not know.")
        self.keys[event.key_id] = Key(
            id=event.key_id,
            name=event.name,
            role=Role(event.role),
            secret_sha256=event.secret_sha256,
            created_at_s=event.at_s,
            namespaces=event.namespaces,
        )
