"""The API against its own description: whatever is sent, no 5xx and no answer that the description does not allow.

The long form, on a running server: `schemathesis run http://127.0.0.1:8000/openapi.json --max-examples 500 --checks`
and the names below, joined by commas.
"""

from collections import Counter
from typing import Any

import pytest
import schemathesis.openapi
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from app.api.app import create_app
from tests.api.fake_service import FakeService

pytestmark = pytest.mark.slow

NAMES = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]
QUICK: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
SERVICE = FakeService()
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", create_app(SERVICE, allowed_hosts=["*"]))  # type: ignore[arg-type]
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
WANTED = CHECKS.get_by_names(NAMES)
EXAMPLES, SEQUENCES = (40, 200, 1_000), (100, 400, 1_600)
"""The numbers of draws, the next one where a number was too few to see what a test looks for. Hypothesis draws
constants from all modules that are imported, so that what a number shows changes with them."""


def wanted(case: Any, response: Any) -> Any:
    """The checks of this answer. That a wrong body is refused cannot be asked of one that is too large to be read, nor
    of one that is right after all: schemathesis breaks one branch of a `oneOf`, and the body may satisfy the other."""
    refusal_is_due = response.status_code != 413 and not (wrong_parts(case) == ["body"] and body_is_valid(case))
    return [check for check in WANTED if refusal_is_due or "negative" not in check.__name__]


def wrong_parts(case: Any) -> list[str]:
    """The parts of the request that schemathesis says that it broke."""
    return [where.value for where, part in case.meta.components.items() if part.mode is GenerationMode.NEGATIVE]


def body_is_valid(case: Any) -> bool:
    """True if the description allows the body, whatever is meant to be wrong with it."""
    if isinstance(case.body, bytes):  # no JSON at all
        return False
    return any(body.media_type == case.media_type and body.is_valid(case.body) for body in case.operation.body)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_answers_as_it_is_described(label: str) -> None:
    seen: Counter[int] = Counter()

    def holds(case: Any) -> None:
        SERVICE.__init__()  # type: ignore[misc]  # the app keeps it, so that it begins anew in its place
        response = case.call()
        seen[response.status_code] += 1
        case.validate_response(response, checks=wanted(case, response))

    for examples in EXAMPLES:
        settings(max_examples=examples, **QUICK)(given(OPERATIONS[label].as_strategy())(holds))()
        # an empty log, which every example begins with, is no snapshot
        if set(seen) != {422} or label == "POST /snapshots":
            return
    raise AssertionError(f"every one of {seen.total()} requests was refused")


def test_sequences_of_requests_are_answered_as_they_are_described() -> None:
    """Edits that were made are looked at, taken back, switched off and on: the links of the description. Among all
    operations too few of the steps that are drawn would make an edit."""
    seen: Counter[tuple[str, int]] = Counter()

    class Client(SCHEMA.include(path_regex="^/edit").as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            SERVICE.__init__()  # type: ignore[misc]

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            seen[case.operation.label, response.status_code] += 1
            case.validate_response(response, checks=wanted(case, response))

    for sequences in SEQUENCES:
        Client.run(settings=settings(max_examples=sequences, stateful_step_count=10, **QUICK))
        if all(seen[label, 200] for label in ("GET /edits/{edit_id}", "POST /edits/{edit_id}/rollback")):
            return
    raise AssertionError(seen)


def test_a_body_that_satisfies_the_other_branch_of_a_choice_is_not_taken_for_wrong() -> None:
    operation = OPERATIONS["POST /edit"]
    right, wrong = {"prompt": "Who?", "target": "Ada"}, {"prompt": "Who?", "messages": [], "target": "Ada"}
    assert body_is_valid(operation.Case(body={"edits": [right]}, media_type="application/json"))
    for body in ({"edits": [wrong]}, b"\x00"):
        assert not body_is_valid(operation.Case(body=body, media_type="application/json"))
