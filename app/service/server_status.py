"""The state of a server, for its probes, metrics and lists of editors."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from app.editors.registry import AUTO
from app.engine.serving_engine import ServingEngine
from app.service.namespaces import switched_off, switches
from app.service.records import Records
from app.service.views import JudgeView, Status


def status_of(
    records: Records,
    engine: ServingEngine,
    fingerprint: str,
    why_not: str | None,
    log_silence_s: float,
    judge: JudgeView,
    describe: Mapping[str, Any],
) -> Status:
    ledger, hosted = records.ledger, engine.hosted
    return Status(
        ready=why_not is None,
        why_not=why_not,
        model=hosted.name,
        model_fingerprint=fingerprint,
        site=", ".join(map(str, engine.editors[AUTO[0]].sites)),
        device=str(hosted.device),
        dtype=str(hosted.dtype).removeprefix("torch."),
        store=records.log.url,
        durable=records.log.durable,
        revision=ledger.revision,
        hash=records.hash,
        live_edits=ledger.live_count(),
        pending_proposals=len(ledger.approval.pending()),
        switched_on=switches(ledger)[0].on,
        switched_off=switched_off(ledger),
        log_lag=records.lag,
        log_silence_s=log_silence_s,
        running=engine.running,
        waiting=engine.waiting,
        engine_restarts=engine.counters.restarts,
        judge=judge,
        extra={
            "parameters": hosted.parameters,
            "prompt_tokens": engine.counters.prompt_tokens,
            "generated_tokens": engine.counters.generated_tokens,
            **describe,
        },
    )


def editors_of(records: Records, engine: ServingEngine) -> list[dict[str, Any]]:
    live = Counter(edit.editor_key for edit in records.ledger.all_live())
    return [
        {
            "name": editor.name,
            "preset": editor.preset,
            "live_edits": live[editor.key],
            "held_bytes": editor.held_bytes,
            "sites": [str(site) for site in editor.sites],
            "capabilities": {
                name: getattr(editor.capabilities, name) for name in type(editor.capabilities).__dataclass_fields__
            },
        }
        for editor in engine.editors.values()
    ]
