"""The API against its own description: whatever is sent, no 5xx and no answer that the description does not allow.

The long form, on a running server: `schemathesis run http://127.0.0.1:8000/openapi.json --max-examples 500 --checks`
and the names below, joined by commas.
"""

from collections import Counter
from typing import Any

import pytest
import schemathesis.openapi
from hypothesis import HealthCheck, given, settings
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


def wanted(response: Any) -> Any:
    """A body that is too large is not read: that it is wrong besides is not known to be refused."""
    return [check for check in WANTED if response.status_code != 413 or "negative" not in check.__name__]


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_answers_as_it_is_described(label: str) -> None:
    seen: Counter[int] = Counter()

    @settings(max_examples=40, **QUICK)
    @given(OPERATIONS[label].as_strategy())
    def holds(case: Any) -> None:
        SERVICE.__init__()  # type: ignore[misc]  # the app keeps it, so that it begins anew in its place
        response = case.call()
        seen[response.status_code] += 1
        case.validate_response(response, checks=wanted(response))

    holds()
    # an empty log, which every example begins with, is no snapshot
    assert set(seen) != {422} or label == "POST /snapshots"


def test_sequences_of_requests_are_answered_as_they_are_described() -> None:
    """Edits that were made are looked at, taken back, switched off and on: the links of the description. Among all
    operations too few of the steps that are drawn would make an edit."""
    seen: Counter[tuple[str, int]] = Counter()

    class Client(SCHEMA.include(path_regex="^/edit").as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            SERVICE.__init__()  # type: ignore[misc]

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            seen[case.operation.label, response.status_code] += 1
            case.validate_response(response, checks=wanted(response))

    Client.run(settings=settings(max_examples=100, stateful_step_count=10, **QUICK))
    for label in ("GET /edits/{edit_id}", "POST /edits/{edit_id}/rollback"):
        assert seen[label, 200], seen
