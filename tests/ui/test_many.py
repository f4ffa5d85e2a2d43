"""Many corrections at once: checked by row, tried, published as far as they hold; the rest comes back as a file."""

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest

from app.domain.edit import EditRequest
from app.domain.errors import StoreUnavailable
from app.domain.keys import Role
from app.service.files import read
from tests.api.fake_answers import DOUBTFUL
from tests.api.fake_service import REJECTED, UNFIT, FakeService
from tests.ui.test_coming_in import EVIL, corrected, key_for
from tests.ui.visitor import BASE, Forms, Visitor, text_of

FILE = f"""prompt,target,paraphrases,reason,expires
Who?,Ada,"Who is it?
Who was it?",ticket 1,2030-12-31
Where?,,,,
When?,{UNFIT},,,
Why?,{DOUBTFUL},,,
How?,{REJECTED},,,
Who?,Grace,,,
Whose?,Eve,,,yesterday
Which?,Left,,,
"""


def sent(visitor: Visitor, text: str = FILE, **more: str) -> httpx.Response:
    """The form with a file, as a browser sends it."""
    form = dict(Forms(visitor.get("/ui/many").text).found["/ui/many"]) | {"how": "text"} | more
    form.pop("file")
    files: Any = {"file": ("corrections.csv", text.encode(), "text/csv")}
    response = visitor.request("POST", "/ui/many", data=form, files=files)
    return visitor.get(response.headers["location"]) if response.status_code == 303 else response


def tried(visitor: Visitor, text: str = FILE, **more: str) -> httpx.Response:
    page = sent(visitor, text, **more)
    return visitor.send(page.url.path, f"{page.url.path}/preview")


def targets(service: FakeService, namespace: str = "default") -> list[str]:
    return [edit.request.target for edit in service.records.ledger.live(namespace)]


def test_rows_are_checked_before_anything_is_fitted(visitor: Visitor, service: FakeService) -> None:
    told = text_of(sent(visitor))
    assert "4 rows cannot be taken as they stand" in told
    assert "Line 4: The target is empty" in told
    assert "Line 5: `target` holds a control token" in told
    assert "Line 8: Line 2 has the same prompt" in told
    assert "Line 9: “expires” must be a day" in told
    assert "Preview 4" in told
    assert service.origins == [], "nothing was tried"


def test_what_holds_is_published_and_the_rest_comes_back(visitor: Visitor, service: FakeService) -> None:
    page = tried(visitor)
    told = text_of(page)
    assert service.revision == 0
    assert "Publish what holds: 2" in told
    assert "The prompt is answered otherwise" in told
    assert "The edit did not hold when tried." in told
    assert "<ins>Ada</ins>" in page.text
    done = visitor.send(page.url.path, f"{page.url.path}/publish", leave="10")
    assert "1 is live" in text_of(done)
    assert targets(service) == ["Ada"]
    (edit,) = service.records.ledger.live("default")
    assert (edit.request.paraphrases, edit.request.reason) == (("Who is it?", "Who was it?"), "ticket 1")
    assert edit.expires_at_s is not None
    rest = visitor.get(f"{page.url.path}/rest")
    assert "rest.csv" in rest.headers["content-disposition"]
    _, lines = read(rest.text)
    assert [line.text("prompt") for line in lines] == ["Where?", "When?", "Why?", "How?", "Who?", "Whose?", "Which?"]
    assert "It was left out." in rest.text
    assert "The target is empty" in rest.text


def test_the_rest_is_repaired_and_sent_again(visitor: Visitor, service: FakeService) -> None:
    page = tried(visitor, f"prompt,target\nWho?,Ada\nWhy?,{DOUBTFUL}\n")
    visitor.send(page.url.path, f"{page.url.path}/publish")
    rest = visitor.get(f"{page.url.path}/rest").text.replace(DOUBTFUL, "Because")
    again = tried(visitor, rest)
    done = visitor.send(again.url.path, f"{again.url.path}/publish")
    assert "Every row is live" in text_of(done)
    assert targets(service) == ["Ada", "Because"]


def test_forms_that_are_sent_twice_are_carried_out_once(visitor: Visitor, service: FakeService) -> None:
    form = [*Forms(visitor.get("/ui/many").text).found["/ui/many"]]
    pages = [visitor.post("/ui/many", form, pasted="prompt,target\nWho?,Ada\n", how="text") for _ in range(2)]
    assert pages[0].url.path == pages[1].url.path
    path = pages[0].url.path
    preview = Forms(pages[0].text).found[f"{path}/preview"]
    for _ in range(2):
        page = visitor.post(f"{path}/preview", preview)
    assert len(service.origins) == 1, "it was tried once"
    form = Forms(page.text).found[f"{path}/publish"]
    for _ in range(2):
        done = visitor.post(f"{path}/publish", form)
    visitor.get(path)
    assert "Every row is live" in text_of(done)
    assert service.revision == 1
    late = visitor.post(f"{path}/preview", preview)
    assert "Every row is live" in text_of(late), "what is published is not tried again"


def test_a_form_that_arrives_twice_at_once_makes_one_sheet(visitor: Visitor, service: FakeService) -> None:
    form = httpx.QueryParams(
        [*Forms(visitor.get("/ui/many").text).found["/ui/many"], ("pasted", "prompt,target\nQ?,A\n")]
    )
    held, check = threading.Event(), service.check_edit

    def slow(request: EditRequest) -> None:
        service.check_edit = check  # type: ignore[method-assign]
        assert held.wait(60)

    service.check_edit = slow  # type: ignore[method-assign]

    async def story() -> str:
        headers = {**visitor.headers, "Content-Type": "application/x-www-form-urlencoded"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(visitor.app), base_url=BASE, cookies=visitor.cookies, headers=headers
        ) as client:
            first = asyncio.create_task(client.post("/ui/many", content=str(form)))
            while service.check_edit is slow:
                await asyncio.sleep(0.01)
            path = (await client.post("/ui/many", content=str(form))).headers["location"]
            preview = httpx.QueryParams(Forms((await client.get(path)).text).found[f"{path}/preview"])
            await client.post(f"{path}/preview", content=str(preview))
            held.set()
            assert (await first).headers["location"] == path
            return path

    path = asyncio.run(story())
    assert "Publish what holds: 1" in text_of(visitor.get(path)), "the second is not in the place of the first"


def test_json_lines_are_pasted_and_come_back_as_such(visitor: Visitor, service: FakeService) -> None:
    rows = [{"prompt": "Who?", "target": "Ada", "counter_examples": ["Where?"]}, {"prompt": "Why?", "target": REJECTED}]
    text = "\n".join(map(json.dumps, rows))
    page = visitor.send("/ui/many", pasted=text, how="text", namespace="staging", reason="import 7")
    page = visitor.send(page.url.path, f"{page.url.path}/preview")
    visitor.send(page.url.path, f"{page.url.path}/publish")
    (edit,) = service.records.ledger.live("staging")
    assert (edit.request.counter_examples, edit.request.reason) == (("Where?",), "import 7")
    (row,) = map(json.loads, visitor.get(f"{page.url.path}/rest").text.splitlines())
    assert row == {**rows[1], "problem": "The edit did not hold when tried."}


def test_a_file_that_cannot_be_read_says_why_and_keeps_what_was_typed(visitor: Visitor) -> None:
    refused = visitor.send("/ui/many", pasted="question,answer\na,b\n", reason="import 7")
    assert refused.status_code == 422
    assert "no column 'prompt'" in text_of(refused)
    assert "question,answer" in refused.text
    assert 'value="import 7"' in refused.text
    form = dict(Forms(refused.text).found["/ui/many"])
    form.pop("file")
    latin = visitor.request("POST", "/ui/many", data=form, files={"file": ("a.csv", "é".encode("latin-1"), "text/csv")})
    assert latin.status_code == 422
    assert "not UTF-8" in text_of(latin)


def test_what_would_be_replaced_is_told_and_what_changed_since_is_not(visitor: Visitor, service: FakeService) -> None:
    corrected(visitor, "Who?", "Ada")
    page = tried(visitor, "prompt,target\nWho?,Grace\n")
    assert "It replaces “Ada”" in text_of(page)
    form = Forms(page.text).found[f"{page.url.path}/publish"]
    corrected(visitor, "Who?", "Eve")
    done = visitor.post(f"{page.url.path}/publish", form)
    assert "changed after revision 1" in text_of(done)
    assert targets(service) == ["Eve"]


def test_a_log_that_is_away_loses_nothing(visitor: Visitor, service: FakeService) -> None:
    page = tried(visitor, "prompt,target\nWho?,Ada\nWhere?,Bern\n")
    service.fails = StoreUnavailable("The log is away: ask again later.")
    away = visitor.send(page.url.path, f"{page.url.path}/publish")
    assert "The log is away" in text_of(away)
    assert service.revision == 0
    visitor.send(page.url.path, f"{page.url.path}/publish")
    assert targets(service) == ["Ada", "Bern"]


def test_a_reason_that_is_asked_for_is_asked_of_each_row(visitor: Visitor, service: FakeService) -> None:
    service.reason_required = True
    told = text_of(sent(visitor, "prompt,target,reason\nWho?,Ada,ticket 1\nWhere?,Bern,\n"))
    assert "Line 3: The reason is missing" in told
    assert "Preview 1" in told


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_a_file_holds_is_shown_as_text(visitor: Visitor, service: FakeService, kind: str) -> None:
    service.canned[f"Who? {EVIL}"] = EVIL
    rows = [{"prompt": f"Who? {EVIL}", "target": f"Ada {EVIL}"}, {"prompt": f"Why? {EVIL}", "target": ""}]
    lines = ["prompt,target", *(",".join('"' + cell.replace('"', '""') + '"' for cell in row.values()) for row in rows)]
    text = "\n".join(lines if kind == "csv" else [*map(json.dumps, rows), json.dumps({EVIL: 1})])
    page = sent(visitor, text, reason=EVIL)
    shown = [page, visitor.send(page.url.path, f"{page.url.path}/preview")]
    shown.append(visitor.send(page.url.path, f"{page.url.path}/publish"))
    shown.append(sent(visitor, f"prompt,target,{EVIL.replace(',', '')}\na,b,c\n"))
    shown.append(visitor.send("/ui/many", pasted=f"</textarea>{EVIL}"))
    for each in shown:
        assert "<script>alert" not in each.text, each.url
        assert "<img src=x" not in each.text, each.url
    assert "&lt;script&gt;alert" in shown[0].text
    rest = visitor.get(f"{page.url.path}/rest")
    assert rest.headers["content-type"].startswith(("text/csv", "application/x-ndjson"))
    assert rest.headers["x-content-type-options"] == "nosniff"


def test_only_those_who_may_correct_see_it(visitor: Visitor, service: FakeService) -> None:
    visitor.sign_in(key_for(service, Role.READER))
    assert visitor.get("/ui/many").status_code == 403
    assert "/ui/many" not in visitor.get("/ui/edits").text


def test_forged_files_are_not_taken(visitor: Visitor, service: FakeService) -> None:
    visitor.get("/ui/many")
    files: Any = {"file": ("a.csv", b"prompt,target\nWho?,Ada\n", "text/csv")}
    assert visitor.request("POST", "/ui/many", data={"csrf": "x"}, files=files).status_code == 403
    assert visitor.request("POST", "/ui/many", files=files).status_code == 403


def test_protected_questions_are_asked_now(visitor: Visitor, service: FakeService) -> None:
    edit_id = corrected(visitor, "Who?", f"Ada {EVIL}")
    path = "/ui/namespaces/protected?namespace=default"
    form = Forms(visitor.get(path).text).found["/ui/namespaces/protected/set"]
    for _ in range(2):
        told = visitor.post("/ui/namespaces/protected/run", form, prompts="Who?\nWhere?")
    assert "1 of 2 questions are answered otherwise" in text_of(told)
    assert f"/ui/edits/{edit_id}" in told.text
    assert "<script>alert" not in told.text
    assert "1 answered as ever" in text_of(told)
    assert "Who?\nWhere?" in told.text, "what was typed is there to be saved"
    assert len(service.asked) == 4, "sent twice, it is asked once"
    assert service.records.hits.of(edit_id) == 0, "nobody asked but the page"
    assert service.records.ledger.probes == {}
    visitor.send(path, "/ui/namespaces/protected/set", prompts="Where?")
    assert "None of 1 question" in text_of(visitor.post("/ui/namespaces/protected/run", form, prompts="Where?"))


def test_what_a_proposer_sends_waits_row_by_row_and_is_no_part_of_the_rest(
    visitor: Visitor, service: FakeService
) -> None:
    visitor.sign_in(key_for(service, Role.PROPOSER))
    page = tried(visitor)
    assert "Propose what holds: 2" in text_of(page)
    done = visitor.send(page.url.path, f"{page.url.path}/publish")
    assert "0 are live. 2 wait for a second person" in text_of(done)
    waiting = service.records.ledger.approval.pending()
    assert {each.edits[0].request.target for each in waiting} == {"Ada", "Left"}
    assert all(f"/ui/proposals/{each.id}" in done.text for each in waiting)
    assert targets(service) == []
    assert "6 rows are not live" in text_of(done)
