"""The editors by name. Adding an editor takes one line here."""

from collections.abc import Mapping

from app.editors import grace, hook_layer, lora_mixture, patcher
from app.editors.base import Editor
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


def make_editors(foundation: Foundation) -> dict[str, Editor]:
    """Build every editor under every preset; the result is keyed by adaptor key."""
    built = [build(foundation) for presets in EDITORS.values() for build in presets.values()]
    return {editor.key: editor for editor in built}
