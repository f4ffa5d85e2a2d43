"""A replica without Ray: when it starts, what makes it unhealthy, how it ends, and what it refuses."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from app.bootstrap import assemble
from app.config import Settings
from app.domain.errors import InvalidRequest
from app.ray.application import NAME, most_replicas, settings_of
from app.ray.replica import REPLICA, Replica, check_store
from app.service.service import Service
from app.service.work_in_progress import DRAIN_S
from app.store.memory import MemoryLog
from tests.models import tiny
from tests.service.conftest import ORIGIN, edit
from tests.test_house import ROOT

PROMPT, TARGET = "The capital of Ruritania is", "Strelsau"


def a_replica(log: MemoryLog, made: list[Service], **settings: Any) -> Replica:
    def load(chosen: Settings) -> Service:
        made.append(assemble(tiny("llama"), log, chosen))
        return made[-1]

    chosen = Settings(_env_file=None, store="memory://", slots=8, cache_dir=None, **settings)  # type: ignore[call-arg]
    return Replica(chosen, "abc", 1, load)


def asking(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@pytest.mark.slow
def test_a_replica_is_built_once_it_knows_the_log_and_names_itself_in_answers() -> None:
    async def scenario() -> None:
        log, made = MemoryLog(), []  # type: ignore[var-annotated]
        first = a_replica(log, made, allow_anonymous=True)
        await first.build()
        await edit(made[0], PROMPT, TARGET, force=True)
        second = a_replica(log, made, allow_anonymous=True)
        app = await second.build()
        async with asking(app) as client:
            found = await client.get("/readyz", headers={"X-Request-Id": "mine"})
            assert (found.status_code, found.json()["revision"]) == (200, 1)
            assert found.headers[REPLICA] == "abc"
            assert "x-request-id" not in found.headers, "Serve's proxy adds it"
            asked = {"inputs": PROMPT, "parameters": {"max_new_tokens": 12}}
            assert (await client.post("/generate", json=asked)).json()["generated_text"].strip() == TARGET
            odd = await client.get("/readyz", headers={"X-Request-Id": "not an id"})
            assert odd.headers["x-request-id"] != "not an id", "the log's lines have this one"
        for each in (first, second):
            await each.stop()

    asyncio.run(scenario())


@pytest.mark.slow
def test_only_a_stopped_engine_makes_it_unhealthy() -> None:
    async def scenario() -> None:
        made: list[Service] = []
        replica = a_replica(MemoryLog(), made, allow_anonymous=True)
        app = await replica.build()
        await replica.check_health()
        made[0].records.holds["history"] = "another log"
        async with asking(app) as client:
            assert (await client.get("/readyz")).status_code == 503
        await replica.check_health()
        await replica.stop()
        with pytest.raises(RuntimeError, match="engine has stopped"):
            await replica.check_health()
        await replica.stop()

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_stop_lets_an_edit_end_that_nobody_waits_for() -> None:
    async def scenario() -> None:
        made: list[Service] = []
        log = MemoryLog()
        replica = a_replica(log, made, allow_anonymous=True, stop_grace_s=60)
        await replica.build()
        making = asyncio.create_task(edit(made[0], PROMPT, TARGET, ORIGIN, force=True))
        while not made[0].work_in_progress.count("edit"):
            await asyncio.sleep(0)
        await replica.stop()
        await making
        assert log.head() == 1

    asyncio.run(scenario())


@pytest.mark.slow
def test_an_edit_whose_client_has_left_goes_on_and_the_same_key_gets_its_result() -> None:
    """Serve cancels a request when its client disconnects, for instance after a timeout of its own."""

    async def scenario() -> None:
        made: list[Service] = []
        log = MemoryLog()
        replica = a_replica(log, made, allow_anonymous=True)
        async with asking(await replica.build()) as client:
            body, key = {"prompt": PROMPT, "target": TARGET, "force": True}, {"Idempotency-Key": "one"}
            leaving = asyncio.create_task(client.post("/edit", json=body, headers=key))
            while not made[0].work_in_progress.count("edit"):
                await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert (log.head(), made[0].work_in_progress.count("edit")) == (0, 1)
            again = await client.post("/edit", json=body, headers=key)
            assert (again.json()["revision"], log.head()) == (1, 1)
            answer = asyncio.create_task(client.post("/generate", json={"inputs": PROMPT}))
            while not made[0].work_in_progress.count("answer"):
                await asyncio.sleep(0)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
            assert not made[0].work_in_progress.count("answer"), "nobody would read it"
        await replica.stop()

    asyncio.run(scenario())


@pytest.mark.slow
def test_without_a_key_a_replica_is_refused_and_nothing_runs_on() -> None:
    async def scenario() -> None:
        made: list[Service] = []
        with pytest.raises(InvalidRequest, match=r"errata keys create --role admin"):
            await a_replica(MemoryLog(), made).build()
        assert not made[0].alive

    asyncio.run(scenario())


def test_replicas_that_would_not_share_a_log_are_refused() -> None:
    for shared in ("redis://host:6379/0", "rediss://host/0", "redis+sentinel://host/0"):
        check_store(shared, 8)
    check_store("sqlite:////data/errata.db", 1)
    for own in ("sqlite:////data/errata.db", "memory://"):
        with pytest.raises(InvalidRequest, match=r"Up to 2 replicas .*redis://host:6379/0"):
            check_store(own, 2)


def test_the_number_of_replicas_is_the_largest_that_autoscaling_may_choose() -> None:
    fixed = SimpleNamespace(num_replicas=3, autoscaling_config=None)
    scaled = SimpleNamespace(num_replicas=1, autoscaling_config=SimpleNamespace(max_replicas=8))
    assert [most_replicas(each) for each in (fixed, scaled)] == [3, 8]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"log_secret": "0123456789abcdef"}, "ERRATA_LOG_SECRET"),
        ({"store": "redis://:hush@host/0"}, "in the environment"),
        ({"slots": 0}, "slots: "),
        ({"slotz": 1}, "slotz: "),
    ],
)
def test_wrong_arguments_are_refused_by_name_and_without_values(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as caught:
        settings_of(arguments)
    assert "hush" not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


def test_a_misspelt_variable_of_a_node_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_STOER", "redis://host/0")
    with pytest.raises(InvalidRequest, match="did you mean ERRATA_STORE"):
        settings_of({})


def test_the_serve_config_names_what_exists_and_gives_a_stop_its_time() -> None:
    config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    (application,) = config["applications"]
    (deployment,) = application["deployments"]
    assert application["import_path"] == "app.ray.application:application"
    assert deployment["name"] == NAME
    settings = settings_of(application["args"])
    assert deployment["graceful_shutdown_timeout_s"] >= settings.stop_grace_s + DRAIN_S
    assert deployment["max_ongoing_requests"] == 2 * settings.slots
    assert deployment["autoscaling_config"]["target_ongoing_requests"] == settings.slots // 2
