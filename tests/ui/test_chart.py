"""Hits over time on the page of an edit: a bar for each day that had some, and the same in words."""

import re

from app.service.hits import DAY_S, DAYS
from app.ui.chart import HEIGHT, WIDTH, chart
from tests.api.fake_service import NOW_S
from tests.ui.test_coming_in import corrected
from tests.ui.visitor import Visitor, text_of


def test_a_days_bar_is_as_high_as_its_share_of_the_most() -> None:
    drawn = chart([0, 4, 0, 1000, 2], 3 * DAY_S)
    assert [(bar.x, bar.y, bar.height) for bar in drawn.bars] == [
        (WIDTH, HEIGHT - 2, 2),  # a day with hits is never without a bar
        (3 * WIDTH, 0, HEIGHT),
        (4 * WIDTH, HEIGHT - 2, 2),
    ]
    assert [bar.text for bar in drawn.bars] == ["1 Jan 1970: 4", "3 Jan 1970: 1,000", "4 Jan 1970: 2"]


def test_the_figures_are_told_in_words() -> None:
    drawn = chart([9, *[1] * 8, 3], 30 * DAY_S)
    assert (drawn.first, drawn.last) == ("22 Jan 1970", "31 Jan 1970")
    assert drawn.text == "3 today, 9 in 7 days, 20 in 10 days; most on 22 Jan 1970: 9"
    assert chart([0] * 90, 30 * DAY_S).text == "0 today, 0 in 7 days, 0 in 90 days"


def test_an_edits_page_shows_its_hits_by_day(visitor: Visitor) -> None:
    edit_id = corrected(visitor, "Who?", "Ada")
    quiet = visitor.get(f"/ui/edits/{edit_id}")
    assert "0 today, 0 in 7 days, 0 in 90 days" in text_of(quiet)
    assert 'class="hits"' not in quiet.text
    hits = visitor.service.records.hits
    for days_ago, count in ((0, 2), (3, 6), (DAYS - 1, 1), (DAYS, 5)):
        hits.count([edit_id] * count, NOW_S - days_ago * DAY_S)
    shown = visitor.get(f"/ui/edits/{edit_id}")
    assert "2 today, 8 in 7 days, 9 in 90 days; most on 11 Nov 2023: 6" in text_of(shown)
    drawing = shown.text.partition('class="hits"')[2].partition("</svg>")[0]
    assert [int(x) for x in re.findall(r'<rect x="(\d+)"', drawing)] == [0, (DAYS - 4) * WIDTH, (DAYS - 1) * WIDTH]
    assert 'aria-label="Answers by day (UTC): 2 today' in drawing
