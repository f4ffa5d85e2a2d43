"""Webhooks on the pages: set up, shown once, tried, removed."""

from app.domain.keys import Role
from tests.api.fake_service import FakeService
from tests.ui.test_coming_in import EVIL, key_for
from tests.ui.visitor import Forms, Visitor, text_of

URL = "https://hooks.example.com/errata"


def test_the_secret_is_shown_once(visitor: Visitor, service: FakeService) -> None:
    form = Forms(visitor.get("/ui/webhooks").text).found["/ui/webhooks"]
    assert [value for name, value in form if name == "kind"] == ["publish", "rollback", "switch"]
    made = visitor.post("/ui/webhooks", form, url=URL, namespaces="staging production")
    secret = made.text.partition('<code class="key">')[2].partition("</code>")[0]
    assert secret.startswith("whsec_")
    (hook,) = service.records.ledger.webhooks.values()
    assert (hook.url, hook.namespaces) == (URL, ("staging", "production"))
    again = visitor.post("/ui/webhooks", form, url=URL, namespaces="staging production")
    assert again.status_code == 409
    assert secret not in visitor.get("/ui/webhooks").text
    assert len(service.records.ledger.webhooks) == 1


def test_a_webhook_is_tried_and_removed(visitor: Visitor, service: FakeService) -> None:
    visitor.send("/ui/webhooks", "/ui/webhooks", url=URL)
    (hook_id,) = service.records.ledger.webhooks
    tested = visitor.send(f"/ui/webhooks/{hook_id}", "/ui/webhooks/test")
    assert "The test arrived: 204." in text_of(tested)
    assert "test" in text_of(tested).partition("Last deliveries")[2]
    gone = visitor.send("/ui/webhooks", "/ui/webhooks/remove")
    assert URL not in gone.text.partition("<main")[2].partition("<form")[0]
    assert service.records.ledger.webhooks == {}
    assert visitor.get(f"/ui/webhooks/{hook_id}").status_code == 404


def test_what_is_refused_says_why_and_is_kept(visitor: Visitor, service: FakeService) -> None:
    url = f"http://127.0.0.1/{EVIL}".replace(" ", "+")
    refused = visitor.send("/ui/webhooks", "/ui/webhooks", url=url, reason=EVIL)
    assert refused.status_code == 422
    assert "ERRATA_WEBHOOK_HOSTS" in text_of(refused)
    assert "<script>alert" not in refused.text
    assert "&lt;script&gt;alert" in refused.text
    assert service.records.ledger.webhooks == {}


def test_only_admins_see_webhooks(visitor: Visitor, service: FakeService) -> None:
    visitor.sign_in(key_for(service, Role.EDITOR))
    assert visitor.get("/ui/webhooks").status_code == 403
