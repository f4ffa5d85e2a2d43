"""A page shows how far a running job is."""

import math

import pytest

from app.editors.base import FitProgress
from app.service.jobs import Job
from app.ui.assets import shipped_assets
from app.ui.desk import environment


def shown(job: Job) -> str:
    template = environment(shipped_assets()).get_template("_progress.html")
    return template.render(job=job, url="/ui/previews/pv_1", doing="Trying the correction")


def test_a_fit_tells_its_steps_its_share_and_what_is_left() -> None:
    progress = FitProgress(step=4, steps=60, loss=1.0, share=0.625)
    page = shown(Job("jb_1", 0.0, phase="fit", progress=progress, seconds_left=7.6))
    assert '<progress max="1" value="0.625"' in page
    assert "Fitting the answer" in page
    assert "About 8 s left. Step 4 of at most 60" in " ".join(page.split())


@pytest.mark.parametrize("left_s", [None, 0.3])
def test_what_is_not_known_or_next_to_nothing_is_not_told(left_s: float | None) -> None:
    progress = FitProgress(step=4, steps=6, loss=math.nan)
    page = shown(Job("jb_1", 0.0, phase="verify", progress=progress, seconds_left=left_s))
    assert 'value="0.667"' in page
    assert " left" not in page
    assert "Step" not in page


def test_before_it_begins_there_is_a_bar_without_a_length() -> None:
    page = shown(Job("jb_1", 0.0))
    assert "Waiting for its turn" in page
    assert "<progress aria-label" in page
