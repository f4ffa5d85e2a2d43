"""The editors by name. Adding an editor takes one line here."""

from collections.abc import Collection, Mapping

from app.editors import grace, hook_layer, lora_mixture, patcher
from app.editors.base import Editor, editor_key
from app.editors.fitting.foundation import Foundation, Presets

EDITORS: Mapping[str, Presets] = {
    "grace": grace.PRESETS,
    "patcher": patcher.PRESETS,
    "lora_mixture": lora_mixture.PRESETS,
    "hook_layer": hook_layer.PRESETS,
}
"""The presets of each editor, by its name."""

AUTO = tuple(EDITORS)
"""The order in which `editor: auto` tries the editors until an edit passes verification: the most reliable editor
first, then the others by the cost of a fit."""


def make_editors(foundation: Foundation, keys: Collection[str] | None = None) -> dict[str, Editor]:
    """Build the editors of these editor keys, or every editor under every preset; the result is keyed by editor key."""
    built = [
        build(foundation)
        for name, presets in EDITORS.items()
        for preset, build in presets.items()
        if keys is None or editor_key(name, preset) in keys
    ]
    return {editor.key: editor for editor in built}
