"""Any edit, any origin, any event, for hypothesis: every field drawn over all that its type allows."""

from hypothesis import strategies as st

from app.domain.edit import Edit, EditRequest
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditProposed,
    EditRetuned,
    EditsDisabled,
    EditsEnabled,
    EditsExpired,
    EditsRefitted,
    EditsRolledBack,
    EditStaged,
    KeyCreated,
    KeyRevoked,
    NamespaceSet,
    Origin,
    PolicySet,
    ProbesSet,
    ProposalExpired,
    ProposalItem,
    ProposalReturned,
    ProposalRevised,
    ProposalWithdrawn,
    Proposer,
    Refit,
    SwitchSet,
    WebhookRemoved,
    WebhookSet,
)

texts = st.text(max_size=20)
words = st.text(min_size=1, max_size=20).filter(str.strip)
numbers = st.floats(allow_nan=False, allow_infinity=False)
ids = st.lists(words, max_size=3).map(tuple)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
metadata = st.dictionaries(texts, values, max_size=3)
requests = st.builds(
    EditRequest,
    prompt=words,
    target=words,
    subject=st.none() | words,
    aliases=ids,
    paraphrases=ids,
    counter_examples=ids,
    probes=ids,
    editor=texts,
    preset=texts,
    namespace=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True),
    seed=st.integers(),
    reason=st.none() | texts,
    expires_in_s=st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    metadata=metadata,
    supersede=ids,
    force=st.booleans(),
    promoted_from=st.none() | words,
    widen=st.none() | st.floats(min_value=0.1, max_value=10),
)
edits = st.builds(
    Edit,
    id=texts,
    request=requests,
    editor=texts,
    created_at_s=numbers,
    expires_at_s=st.none() | numbers,
    supersedes=ids,
    model_fingerprint=texts,
    before=texts,
    after=texts,
    report=metadata,
    learned=metadata,
    tensors=st.binary(max_size=200),
)
optional = st.none() | texts
origins = st.builds(
    Origin,
    actor=texts,
    key_id=optional,
    role=optional,
    reason=optional,
    request_id=optional,
    client=optional,
    idempotency_key=optional,
    digest=optional,
    proposer=st.none()
    | st.builds(Proposer, proposal_id=texts, revision=st.integers(), actor=texts, key_id=optional, role=optional),
)
refits = st.builds(Refit, edit_id=texts, learned=metadata, tensors=st.binary(max_size=40))
proposed = st.builds(ProposalItem, request=requests, editor=texts, before=texts, after=texts, report=metadata)
proposals = {
    "proposal_id": texts,
    "edits": st.lists(proposed, max_size=2).map(tuple),
    "batch": st.booleans(),
    "expires_at_s": numbers,
}
effects = {"revived": ids, "superseded": ids}
own_fields = {
    EditCommitted: {"edit": edits, **effects},
    EditStaged: {"batch_id": texts, "edit": edits},
    BatchCommitted: {"batch_id": texts, "edit_ids": ids, **effects},
    EditsRefitted: {"fits": st.lists(refits, max_size=3).map(tuple)},
    EditRetuned: {
        "fit": refits,
        "request": requests,
        "report": metadata,
        "changed": metadata,
        "forced": st.booleans(),
    },
    ProbesSet: {"namespace": texts, "prompts": ids},
    EditsRolledBack: {"edit_ids": ids, **effects},
    EditsDisabled: {"edit_ids": ids, **effects},
    EditsEnabled: {"edit_ids": ids, **effects},
    EditsExpired: {"edit_ids": ids, **effects},
    SwitchSet: {"namespace": optional, "on": st.booleans()},
    KeyCreated: {"key_id": texts, "name": texts, "role": texts, "secret_sha256": texts, "namespaces": ids},
    KeyRevoked: {"key_id": texts, "name": texts, "role": texts},
    PolicySet: {"namespace": texts, "second_person": st.booleans()},
    EditProposed: proposals,
    ProposalRevised: proposals,
    ProposalReturned: {"proposal_id": texts},
    ProposalWithdrawn: {"proposal_id": texts},
    ProposalExpired: {"proposal_id": texts},
    NamespaceSet: {"namespace": texts, "description": texts},
    WebhookSet: {"hook_id": texts, "url": texts, "kinds": ids, "namespaces": ids},
    WebhookRemoved: {"hook_id": texts, "url": texts},
}
"""The fields of each kind of event beside revision, time and origin."""
