"""Prompts that end with the beginning of a target, and others."""

from app.engine.openings import TargetOpenings


def test_a_prompt_ends_with_a_beginning_of_a_target_that_is_held() -> None:
    openings = TargetOpenings()
    openings.add((1, 2, 3))
    openings.add((1, 2, 3))
    openings.add((5,))
    openings.add(())
    assert openings.end([9, 1])
    assert openings.end([9, 1, 2])
    assert openings.end([1, 1])
    assert not openings.end([9, 1, 2, 3]), "the whole target leaves nothing to go on with"
    assert not openings.end([1, 9])
    assert not openings.end([5])
    assert not openings.end([])
    openings.remove((1, 2, 3))
    assert openings.end([1, 2]), "another edit has the same target"
    openings.remove((1, 2, 3))
    openings.remove(())
    assert not openings.end([1, 2])
