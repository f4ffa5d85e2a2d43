"""Decides what runs next: a queue, slots, and alternation of prefill and decode. Knows no tensors."""

from collections import deque
from dataclasses import dataclass

from app.domain.errors import QueueFull
from app.engine.sequence import Phase, Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of one forward pass and the tokens that each of them feeds."""

    phase: Phase
    sequences: list[Sequence]
    pieces: list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class SlotMove:
    """A sequence's move to another slot, with the keys and values of its `tokens` leading tokens."""

    source: int
    target: int
    tokens: int


class Scheduler:
    """First come, first served. Prefill runs in chunks and alternates with decode, so that no stream stalls. Lookahead
    counts as prefill, and goes first, since most of it ends its sequence.

    `room_tokens` bounds the keys and values that all running sequences may come to hold: a sequence without room waits,
    so that none has to be preempted.

    n running sequences occupy slots 0 to n - 1, so that keys and values are read in place. When one ends, the last
    takes its slot; `moves` holds the moves that must be carried out before the next pass.
    """

    def __init__(
        self, *, slots: int, chunk_tokens: int, batch_tokens: int, queue_limit: int, room_tokens: int | None = None
    ) -> None:
        self.slots, self._room_tokens = slots, room_tokens
        self._chunk_tokens = chunk_tokens
        self._batch_tokens = batch_tokens
        self._queue_limit = queue_limit
        self.moves: list[SlotMove] = []
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._prefilled_last = False

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence. Raises QueueFull beyond the limit; cancelled sequences, which the next step removes, do
        not count."""
        if len(self.waiting) >= self._queue_limit:
            waiting = sum(not each.cancelled for each in self.waiting)
            if waiting >= self._queue_limit:
                raise QueueFull(
                    f"{waiting} requests wait already: try again shortly. See /help/troubleshooting#too-busy.",
                    retry_after_s=1,
                )
        self.waiting.append(sequence)

    def next(self) -> Batch | None:
        while self.waiting and len(self.running) < self.slots and self._has_room(self.waiting[0]):
            sequence = self.waiting.popleft()
            sequence.slot, sequence.phase = len(self.running), Phase.PREFILL
            self.running.append(sequence)
        prefill = [s for s in self.running if s.phase is Phase.PREFILL]
        decode = sorted((s for s in self.running if s.phase is Phase.DECODE), key=lambda s: s.slot)
        ahead = [s for s in self.running if s.phase is Phase.LOOKAHEAD]
        self._prefilled_last = bool(prefill or ahead) and not (decode and self._prefilled_last)
        if self._prefilled_last and ahead:
            return self._pieces(ahead, self._chunk_tokens)  # always few: each token has its logits
        if self._prefilled_last:
            return self._pieces(prefill, self._chunk_tokens if decode else self._batch_tokens)
        return Batch(Phase.DECODE, decode, [s.piece(1) for s in decode]) if decode else None

    def _has_room(self, sequence: Sequence) -> bool:
        """A sequence alone always has room: none may be longer than the total."""
        held = sum(each.most_tokens for each in self.running)
        return self._room_tokens is None or not held or held + sequence.most_tokens <= self._room_tokens

    def _pieces(self, sequences: list[Sequence], most: int) -> Batch:
        """A batch of the oldest sequences, as many as fit into `most` tokens when padded to the longest piece, but at
        least one. All are in one phase. While streams decode, `most` is a single chunk, since they wait for it."""
        pieces = [s.piece(self._chunk_tokens) for s in sequences]
        longest = count = 0
        for piece in pieces:
            longest = max(longest, len(piece))
            if count and longest * (count + 1) > most:
                break
            count += 1
        chosen = sorted(zip(sequences[:count], pieces, strict=False), key=lambda each: each[0].slot)
        return Batch(sequences[0].phase, [sequence for sequence, _ in chosen], [piece for _, piece in chosen])

    def remove(self, sequence: Sequence) -> None:
        """Ends a sequence. Its slot is free at once; the next owner writes before it reads."""
        if sequence.slot >= 0:
            self.running.remove(sequence)
            last = max(self.running, key=lambda each: each.slot, default=sequence)
            if last.slot > sequence.slot:
                self.moves.append(SlotMove(last.slot, sequence.slot, last.computed))
                last.slot = sequence.slot
            sequence.slot = -1
        else:
            self.waiting.remove(sequence)
        sequence.phase = Phase.DONE
