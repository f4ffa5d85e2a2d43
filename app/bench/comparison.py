"""Runs contestants in turn: rounds of a workload at the scale that fits the time. Knows no section, table or
terminal."""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from app.bench.budget import SCALES, Speed, TimeBudget, WorkloadFit, fitted, shrunk
from app.bench.contestants import Contestant, InProcess
from app.bench.crowded import Crowd
from app.bench.timing import Run, median_run, ratio
from app.bench.workload import PromptSpec, Workload, tokens_of
from app.engine.model import HostedModel
from app.service.service import Service

T = TypeVar("T")
OnMessage = Callable[[str], None]
AT_ONCE = 16
PROBE = 8
"""Number of tokens of the answers that measure the speed."""


def ignore(_: Any) -> None:
    """The default of callbacks."""


@dataclass(slots=True)
class RoundResults(Generic[T]):
    """Results of rounds: contestant -> one item per round. `warmed` is false if there was only time for first runs."""

    runs: dict[str, list[T]]
    scale: float
    rounds: int
    wanted: int
    warmed: bool = True

    @property
    def whole(self) -> bool:
        return self.scale == 1.0 and self.rounds == self.wanted and self.warmed


class TimedRun(Protocol):
    """The parts of a run that `take_turns` needs."""

    @property
    def rounds(self) -> int: ...

    @property
    def on_step(self) -> OnMessage: ...

    @property
    def figure(self) -> OnMessage: ...

    @property
    def pace(self) -> TimeBudget: ...


async def take_turns(
    of: TimedRun,
    ways: Mapping[str, Callable[[float], Awaitable[T]]],
    cost: Callable[[float], float],
    figure: Callable[[T], str],
    keep: Callable[[RoundResults[T]], None],
    share: float = 1.0,
) -> RoundResults[T]:
    """Runs all ways in turn, in rounds, at the largest scale that fits `share` of the section's remaining time.

    The first run of each is not counted, as allocators and caches are cold, unless there is time for no other.
    """
    seconds, rounds, names = of.pace.part(share), of.rounds, list(ways)
    fit, first, round_s = WorkloadFit(1.0, rounds, warm=True), {}, 0.0
    began = of.pace.clock()
    if seconds is not None:
        for name in names:
            of.on_step(f"{name}: first run, to warm up and to learn its speed")
            first[name] = await ways[name](SCALES[-1])
        took = of.pace.clock() - began
        fit = fitted(took, cost, rounds, seconds - took)
    result: RoundResults[T] = RoundResults({name: [] for name in names}, fit.scale, 0, rounds)
    if not fit.rounds:
        result = RoundResults({name: [run] for name, run in first.items()}, SCALES[-1], 1, rounds, warmed=False)
        for name, run in first.items():
            of.figure(f"{name}, first run, without time to warm up: {figure(run)}")
        keep(result)
    for number in range(0 if fit.warm else 1, fit.rounds + 1):
        # predictions are estimates: begin a further round only if it fits by the last one's time
        if number > 1 and seconds is not None and began + seconds < of.pace.clock() + round_s:
            break
        round_began = of.pace.clock()
        for name in names:
            what = f"{name}, round {number} of {fit.rounds}" if number else f"{name}, warming up"
            of.on_step(what)
            run = await ways[name](fit.scale)
            of.figure(f"{what}: {figure(run)}")
            if number:
                result.runs[name].append(run)
                result.rounds = number
                keep(result)
        round_s = of.pace.clock() - round_began
    return result


@dataclass(frozen=True, slots=True)
class Bench:
    """Context of a section. `rounds`: number of runs of each contestant; figures are medians.

    `on_step` receives what begins, `figure` each new figure, `keep` the section's results so far.
    """

    service: Service
    hosted: HostedModel
    workload: Workload
    crowd: Crowd | None
    rounds: int
    on_step: OnMessage
    figure: OnMessage = ignore
    pace: TimeBudget = field(default_factory=TimeBudget)
    keep: Callable[[dict[str, Any]], None] = ignore

    async def turns(
        self,
        ways: Mapping[str, Callable[[float], Awaitable[T]]],
        cost: Callable[[float], float],
        figure: Callable[[T], str],
        keep: Callable[[RoundResults[T]], None],
        share: float = 1.0,
    ) -> RoundResults[T]:
        return await take_turns(self, ways, cost, figure, keep, share)

    async def rounds_of(
        self,
        contestants: Sequence[Contestant],
        prompts: Sequence[PromptSpec],
        at_once: int | None = None,
        share: float = 1.0,
        keep: Callable[[RoundResults[Run]], None] = ignore,
    ) -> RoundResults[Run]:
        """Runs of each contestant on the same requests."""

        def way(each: Contestant) -> Callable[[float], Awaitable[Run]]:
            return lambda scale: each.run(shrunk(prompts, scale, at_once), at_once)

        ways = {each.name: way(each) for each in contestants}
        return await self.turns(ways, self.cost(prompts, at_once), format_speed, keep, share)

    def cost(self, prompts: Sequence[PromptSpec], at_once: int | None = None) -> Callable[[float], float]:
        """Scale -> modelled seconds."""
        speed = self.pace.speed
        assert speed is not None or not self.pace.bounded, "the speed is measured before sections begin"
        return lambda scale: 1.0 if speed is None else speed.seconds(shrunk(prompts, scale, at_once), at_once)

    def served(self, name: str = "errata", **more: Any) -> InProcess:
        return InProcess(self.service, more, name)

    async def measure_speed(self) -> Speed:
        """Measures this server's speed with short answers: one alone, then AT_ONCE concurrently."""
        ours = self.served()
        await ours.run(self.workload.even(1, 32, 2))
        alone = await ours.run(self.workload.even(1, 32, PROBE))
        prompts = self.workload.even(AT_ONCE, 32, PROBE)
        together = await ours.run(prompts)
        prefilled = max(each.first_s for each in together.requests)
        prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        steps = [statistics.median(gap for each in run.requests for gap in each.gaps_s) for run in (alone, together)]
        self.pace.speed = Speed(prefilled / prompt_tokens, (1, steps[0]), (AT_ONCE, steps[1]))
        self.figure(f"decoding: {1 / steps[0]:,.0f} tokens/s alone, {AT_ONCE / steps[1]:,.0f} of {AT_ONCE} at once")
        return self.pace.speed


def format_speed(run: Run) -> str:
    return f"{run.tokens_per_s:,.1f} tokens/s"


def size(turns: RoundResults[Any], prompts: Sequence[PromptSpec], at_once: int | None = None) -> dict[str, Any]:
    """Amounts that ran and that were wanted, if time was too short for everything."""
    if turns.whole:
        return {}
    done = shrunk(prompts, turns.scale, at_once)
    return {
        "size": {
            "requests": [len(done), len(prompts)],
            "tokens": [tokens_of(done), tokens_of(prompts)],
            "rounds": [turns.rounds, turns.wanted],
            "warmed_up": turns.warmed,
        }
    }


def figures(turns: RoundResults[Run], peer: str | None = None) -> dict[str, Any]:
    """Each contestant's median run, and how many times as fast as each other contestant the first one is. An unfinished
    round counts for those that ran."""
    runs_by_name = {name: runs for name, runs in turns.runs.items() if runs}
    first, *others = runs_by_name
    against = {
        name: round(ratio(runs_by_name[first], runs_by_name[name]), 3) for name in others if peer in (None, name)
    }
    return {
        "runs": {name: median_run(runs).figures() for name, runs in runs_by_name.items()},
        "times_as_fast_as": against,
    }
