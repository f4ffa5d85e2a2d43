"""Edits that would silence one another are told apart whatever stands: switches, edits that are off, others at once."""

import asyncio

import pytest

from app.domain.edit import EditRequest, State
from app.domain.errors import EditRejected, InvalidRequest, ScopeConflict
from app.service.retunes import Retune
from tests.help_desk import HELP_DESK, LOCK, PLUGIN
from tests.service.conftest import ORIGIN, ask, edit, serving

pytestmark = pytest.mark.slow
CAPITAL, OTHERWISE = "The capital of Ruritania is", "Ruritania is governed from the city of"


def test_what_answers_while_the_switch_is_on_is_in_the_way_while_it_is_off() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau", paraphrases=(OTHERWISE,))
            king = await edit(service, "The king of Ruritania is", "Rudolf")
            await service.set_switch("default", False, ORIGIN)
            with pytest.raises(ScopeConflict, match=first.edit.id):
                await edit(service, OTHERWISE, "Zenda")
            with pytest.raises(ScopeConflict, match=first.edit.id):
                await service.retune(king.edit.id, Retune(paraphrases=(OTHERWISE,)), ORIGIN)
            made = await edit(service, "The river of Zenda is", "Elbe")
            assert made.edit.after == "Elbe"
            assert (await ask(service, CAPITAL)).said != "Strelsau"
            await service.set_switch("default", True, ORIGIN)
            answers = [(await ask(service, text)).said for text in (CAPITAL, OTHERWISE, "The river of Zenda is")]
            assert answers == ["Strelsau", "Strelsau", "Elbe"]

    asyncio.run(story())


def test_an_edit_that_is_off_is_superseded_by_a_newer_one_of_its_prompt() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau")
            await service.disable([first.edit.id], ORIGIN)
            second = await edit(service, CAPITAL, "Zenda")
            assert second.edit.supersedes == (first.edit.id,)
            (enabled,) = await service.enable([first.edit.id], ORIGIN)
            assert enabled.state is State.SUPERSEDED
            assert (await ask(service, CAPITAL)).said == "Zenda"
            await service.roll_back([second.edit.id], ORIGIN)
            assert (await ask(service, CAPITAL)).said == "Strelsau"

    asyncio.run(story())


def test_an_edit_does_not_come_back_where_another_has_taken_its_prompts() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau", paraphrases=(OTHERWISE,))
            await service.disable([first.edit.id], ORIGIN)
            second = await edit(service, OTHERWISE, "Zenda")
            revision = service.revision
            with pytest.raises(ScopeConflict, match=second.edit.id):
                await service.enable([first.edit.id], ORIGIN)
            assert (service.revision, service.edit_view(first.edit.id).state) == (revision, State.DISABLED)
            await service.disable([second.edit.id], ORIGIN)
            (enabled,) = await service.enable([first.edit.id], ORIGIN)
            assert enabled.state is State.LIVE
            assert (await ask(service, OTHERWISE)).said == "Strelsau"

    asyncio.run(story())


BESIDE = (PLUGIN, LOCK, "How do I report a suspicious e-mail?", "Where do I return a broken headset?")
"""Questions of a help desk; `scope/test_conflict_kinds.py` has all of them, on the index alone."""


def test_only_edits_that_ask_the_same_are_in_each_others_way() -> None:
    async def story() -> None:
        async with serving() as service:
            ids = {
                question: (await edit(service, question, f"Step {at}.")).edit.id for at, question in enumerate(BESIDE)
            }
            for question, edit_id in ids.items():
                with pytest.raises(ScopeConflict) as conflict:
                    await edit(service, HELP_DESK[question], "Otherwise.")
                assert conflict.value.details["conflicts"] == [edit_id]
                assert [hit.edit_id for hit in (await ask(service, HELP_DESK[question])).hits] == [edit_id]
            again = await edit(service, HELP_DESK[PLUGIN], "Step 0.")
            assert again.state is State.LIVE, "it asks the same and says the same"

    asyncio.run(story())


def test_what_is_forced_is_measured_all_the_same() -> None:
    async def story() -> None:
        async with serving() as service:
            await service.set_probes("default", [OTHERWISE], ORIGIN)
            forced = await edit(service, CAPITAL, "Strelsau", paraphrases=(OTHERWISE,), force=True)
            assert forced.edit.report["unchanged"] == {"asked": 1, "right": 0, "changed": [OTHERWISE]}
            assert "would change" in forced.edit.report["tried"][-1]["problems"][0]

    asyncio.run(story())


def test_the_very_same_edit_twice_at_once_is_made_once() -> None:
    async def story() -> None:
        async with serving() as service:
            request = EditRequest(prompt=CAPITAL, target="Strelsau")
            both = await asyncio.gather(*(service.edit([request], ORIGIN) for _ in range(2)))
            assert sorted(each.results[0].created for each in both) == [False, True]
            assert len({each.results[0].view.edit.id for each in both}) == 1
            assert service.revision == 1
            (preview,) = (await service.edit([request], ORIGIN, dry_run=True)).results
            told = preview.view.edit.report
            assert (told["would_commit"], told["stands_already"]) == (False, both[0].results[0].view.edit.id)

    asyncio.run(story())


def test_a_subject_that_the_prompt_does_not_name_is_refused_before_anything_is_fitted() -> None:
    async def story() -> None:
        async with serving() as service:
            with pytest.raises(InvalidRequest, match="`subject`"):
                await edit(service, CAPITAL, "Strelsau", subject="Bohemia")
            made = await edit(service, CAPITAL, "Strelsau", subject="Kingdom of Elphberg", aliases=("Ruritania",))
            assert made.state is State.LIVE

    asyncio.run(story())


def test_a_correction_of_a_correction_comes_back_over_what_it_corrects() -> None:
    async def story() -> None:
        async with serving() as service:
            await edit(service, CAPITAL, "Strelsau")
            await edit(service, CAPITAL, "Zenda")
            third = await edit(service, CAPITAL, "Hentzau")
            await service.disable([third.edit.id], ORIGIN)
            assert (await ask(service, CAPITAL)).said == "Zenda"
            await service.enable([third.edit.id], ORIGIN)
            assert (await ask(service, CAPITAL)).said == "Hentzau"

    asyncio.run(story())


def test_what_is_refused_tells_how_many_recent_prompts_and_not_which() -> None:
    """Errors are kept with their jobs, and recent prompts must stay deletable."""

    async def story() -> None:
        async with serving(recent_prompts=4, thresholds={"*": {"recent": 1.0}}) as service:
            await ask(service, CAPITAL)
            with pytest.raises(EditRejected) as refused:
                await edit(service, CAPITAL, "Strelsau")
            assert refused.value.details["report"][CAPITAL]["recent"] == {"asked": 1, "changed": 1}

    asyncio.run(story())
