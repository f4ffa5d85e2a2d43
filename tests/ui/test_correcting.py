"""A wrong answer becomes an edit without a browser; forms may be refused, sent twice, or sent by two people at once."""

import math

import pytest

from app.domain.errors import StoreUnavailable
from tests.api.fake_service import REJECTED, FakeService
from tests.ui.test_coming_in import corrected
from tests.ui.visitor import Forms, Visitor, text_of


def test_both_answers_and_which_edit_spoke(visitor: Visitor) -> None:
    corrected(visitor, "Who?", "Ada Quill")
    told = text_of(visitor.get("/ui/ask?q=Who%3F&how=text"))
    assert "Ada Quill" in told
    assert "base answer here" in told
    assert "Asks the same as the edit’s question: .90, needs .50" in told


def test_a_chat_is_asked_through_the_template_and_shown_without_it(visitor: Visitor, service: FakeService) -> None:
    preview = visitor.send("/ui/correct", q="Who?", target="Ada", how="chat", more="Whom?")
    visitor.send(preview.url.path)
    (entry,) = service.records.ledger.entries.values()
    assert entry.request.prompt == "<user> Who?\n<assistant>"
    assert set(entry.request.paraphrases) == {"<user> Whom?\n<assistant>", "<user> Who? please\n<assistant>"}
    assert entry.request.counter_examples == ("<user> Who? in 1990\n<assistant>",)
    listed = visitor.get("/ui/edits")
    assert "Who?" in listed.text
    assert "assistant" not in listed.text


def test_a_form_that_is_refused_says_what_to_do_and_keeps_what_was_typed(visitor: Visitor) -> None:
    refused = visitor.send("/ui/correct", q="Who?", target="", reason="because", until="2001-01-01", how="text")
    assert refused.status_code == 422
    assert "The right answer is empty" in text_of(refused)
    assert "because" in refused.text
    past = visitor.send("/ui/correct", q="Who?", target="Ada", until="2001-01-01", how="text")
    assert "lies in the past" in text_of(past)


def test_a_server_that_wants_reasons_is_not_served_without(visitor: Visitor, service: FakeService) -> None:
    service.reason_required = True
    assert "The reason is missing" in text_of(visitor.send("/ui/correct", q="Who?", target="Ada", how="text"))


def test_an_edit_that_does_not_hold_is_refused_and_can_be_changed(visitor: Visitor) -> None:
    preview = visitor.send("/ui/correct", q="Who?", target=REJECTED, how="text", reason="kept")
    assert "did not hold" in text_of(preview)
    assert "kept" in visitor.get(f"{preview.url.path}/change").text


def test_a_preview_changes_nothing(visitor: Visitor, service: FakeService) -> None:
    visitor.send("/ui/correct", q="Who?", target="Ada", how="text")
    assert service.revision == 0


def test_the_border_is_published_where_it_was_dragged(visitor: Visitor, service: FakeService) -> None:
    path = visitor.send("/ui/correct", q="Who?", target="Ada", how="text").url.path
    assert border_of(visitor, path) == 0
    told = text_of(visitor.send(path, border="0.9"))
    assert "moved by hand, to reach fewer questions: 0.41 times the odds" in told
    (entry,) = service.records.ledger.entries.values()
    assert entry.request.widen == pytest.approx(math.exp(-0.9))
    assert service.revision == 1, "the edit and its border are one event"


def test_a_border_is_tried_and_dragged_further(visitor: Visitor, service: FakeService) -> None:
    path = visitor.send("/ui/correct", q="Who?", target="Ada", how="text").url.path
    tried = again(visitor, path, "-0.7")
    assert tried != path
    assert border_of(visitor, tried) == pytest.approx(-0.7)
    further = again(visitor, tried, "-1")
    assert border_of(visitor, further) == pytest.approx(-1)
    changed = visitor.send(f"{further}/change", "/ui/correct", target="Ada Quill").url.path
    assert border_of(visitor, changed) == pytest.approx(-1), "a change of the answer leaves it"
    visitor.send(changed)
    (entry,) = service.records.ledger.entries.values()
    assert (entry.request.target, entry.request.widen) == ("Ada Quill", pytest.approx(math.exp(1)))


@pytest.mark.parametrize(("border", "widen"), [("0.04", None), ("", None), ("far", None), ("-9", 10.0), ("nan", None)])
def test_a_touch_moves_no_border_and_nothing_moves_it_too_far(
    visitor: Visitor, service: FakeService, border: str, widen: float | None
) -> None:
    path = visitor.send("/ui/correct", q="Who?", target="Ada", how="text").url.path
    visitor.send(path, border=border)
    (entry,) = service.records.ledger.entries.values()
    assert entry.request.widen == widen


def again(visitor: Visitor, path: str, border: str) -> str:
    """Try a preview again with another border. -> the path of the new one."""
    return visitor.post(f"{path}/again", Forms(visitor.get(path).text).found[path], border=border).url.path


def border_of(visitor: Visitor, path: str) -> float:
    """The position of a preview's slider, as a logit."""
    (value,) = (value for name, value in Forms(visitor.get(path).text).found[path] if name == "border")
    return float(value)


def test_forms_that_are_sent_twice_are_carried_out_once(visitor: Visitor, service: FakeService) -> None:
    form = Forms(visitor.get("/ui/correct").text).found["/ui/correct"]
    twice = [visitor.post("/ui/correct", form, q="Who?", target="Ada", how="text") for _ in range(2)]
    assert twice[0].url.path == twice[1].url.path
    path = twice[0].url.path
    publish = Forms(visitor.get(path).text).found[path]
    for _ in range(2):
        assert "Live at revision 1" in text_of(visitor.post(path, publish))
    (edit_id,) = service.records.ledger.entries
    undo = Forms(visitor.get(f"/ui/edits/{edit_id}").text).found["/ui/edits/change"]
    for _ in range(2):
        done = visitor.post("/ui/edits/change", undo, action="rollback", reason="was right")
        assert "rolled back at revision 2" in text_of(done)
    again = text_of(visitor.post(path, publish))
    assert "It was published at revision 1, and answers nothing now: rolled back ." in again
    assert "from now on" not in again
    assert service.revision == 2


def test_the_same_form_filled_in_otherwise_is_another_request(visitor: Visitor, service: FakeService) -> None:
    form = Forms(visitor.get("/ui/correct").text).found["/ui/correct"]
    one = visitor.post("/ui/correct", form, q="Who?", target="Ada", how="text")
    other = visitor.post("/ui/correct", form, q="Who?", target="Grace", how="text")
    assert one.url.path != other.url.path


def test_who_publishes_is_told_what_others_did_meanwhile_and_decides(service: FakeService, visitor: Visitor) -> None:
    path = visitor.send("/ui/correct", q="Who?", target="Ada", how="text").url.path
    form = Forms(visitor.get(path).text).found[path]
    other = Visitor(service, app=visitor.app)
    other.send("/ui/sign-in", name="Grace")
    corrected(other, "Who?", "Grace", reason="she said so")
    told = visitor.post(path, form, border="0.7")
    assert told.status_code == 409
    assert "Others were faster" in text_of(told)
    assert dict(Forms(told.text).found[path])["border"] == "0.7", "where it was dragged"
    assert "Grace" in text_of(told)
    assert "she said so" in text_of(told)
    assert service.revision == 1
    done = visitor.post(path, Forms(told.text).found[path])
    assert "Live at revision 2" in text_of(done)
    assert list(service.records.ledger.entries.values())[-1].request.widen == pytest.approx(math.exp(-0.7))


def test_who_rolls_back_is_told_what_others_did_meanwhile(service: FakeService, visitor: Visitor) -> None:
    edit_id = corrected(visitor)
    form = Forms(visitor.get(f"/ui/edits/{edit_id}").text).found["/ui/edits/change"]
    other = Visitor(service, app=visitor.app)
    other.send("/ui/sign-in", name="Grace")
    other.send(f"/ui/edits/{edit_id}", "/ui/edits/change", action="disable", reason="looking at it")
    told = visitor.post("/ui/edits/change", form, action="rollback")
    assert told.status_code == 409
    assert "Grace disabled" in text_of(told)
    assert "looking at it" in text_of(told)
    assert service.revision == 2
    done = visitor.post("/ui/edits/change", Forms(told.text).found["/ui/edits/change"])
    assert "rolled back at revision 3" in text_of(done)


def test_many_are_rolled_back_in_one_step_with_a_reason(visitor: Visitor, service: FakeService) -> None:
    ids = [corrected(visitor, f"Who is {n}?", f"Ada {n}") for n in range(3)]
    asked = visitor.send("/ui/edits", "/ui/edits/change", id=ids[:2], action="rollback")
    assert "Roll back 2 edits?" in text_of(asked)
    done = visitor.post("/ui/edits/change", Forms(asked.text).found["/ui/edits/change"], reason="import was wrong")
    assert "2 edits rolled back" in text_of(done)
    ledger = service.records.ledger
    assert service.revision == 4
    assert [ledger.state(each).value for each in ids] == ["rolled_back", "rolled_back", "live"]
    assert ledger.entry(ids[0]).history[-1].origin.reason == "import was wrong"


def test_edits_are_searched_and_filtered(visitor: Visitor) -> None:
    corrected(visitor, "Who leads Lumen?", "Ada")
    corrected(visitor, "Where is Tessel?", "Bern", namespace="staging")
    assert "Tessel" not in visitor.get("/ui/edits?q=lumen").text.partition("<tbody")[2]
    assert "Lumen" not in visitor.get("/ui/edits?namespace=staging").text.partition("<tbody")[2]
    assert "No edit is like that" in visitor.get("/ui/edits?state=expired").text
    assert visitor.get("/ui/edits?state=odd").status_code == 422
    assert "Lumen" in visitor.get("/ui/edits?use=never").text


def test_edits_are_sorted_and_paged(visitor: Visitor) -> None:
    for name in ("Zeta", "Alpha", "Mid"):
        corrected(visitor, f"{name}?", "Ada")
    visitor.get("/ui/ask?q=Mid%3F&how=text")

    def listed(sort: str) -> list[str]:
        text = visitor.get(f"/ui/edits?sort={sort}").text.partition("<tbody")[2]
        return sorted(("Zeta", "Alpha", "Mid"), key=lambda name: text.index(f">{name}?"))

    assert listed("newest") == ["Mid", "Alpha", "Zeta"]
    assert listed("oldest") == ["Zeta", "Alpha", "Mid"]
    assert listed("question") == ["Alpha", "Mid", "Zeta"]
    assert listed("hits")[0] == "Mid"
    assert visitor.get("/ui/edits?sort=odd").status_code == 422


def test_retuning_adds_to_the_scope_and_stands_in_the_history(visitor: Visitor, service: FakeService) -> None:
    edit_id = corrected(visitor)
    done = visitor.send(f"/ui/edits/{edit_id}", f"/ui/edits/{edit_id}/retune", more="Whom?", reason="missed")
    assert "Whom?" in text_of(done)
    assert "missed" in text_of(done)
    assert service.records.ledger.entry(edit_id).request.paraphrases == ("Who? please", "Whom?")
    nothing = visitor.send(f"/ui/edits/{edit_id}", f"/ui/edits/{edit_id}/retune")
    assert nothing.status_code == 422
    assert "There is nothing to change" in text_of(nothing)


def test_a_log_that_is_away_is_told_and_nothing_is_lost(visitor: Visitor, service: FakeService) -> None:
    path = visitor.send("/ui/correct", q="Who?", target="Ada", how="text").url.path
    service.fails = StoreUnavailable("The log cannot be written now: try again.")
    refused = visitor.send(path)
    assert refused.status_code == 503
    assert "The log cannot be written" in text_of(refused)
    assert "Live at revision 1" in text_of(visitor.send(path))


def test_news_of_a_change_reach_who_listens(service: FakeService, visitor: Visitor) -> None:
    corrected(visitor)
    assert "anonymous published an edit" in visitor.heard("event: change")
