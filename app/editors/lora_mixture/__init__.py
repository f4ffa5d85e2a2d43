"""ELDER: the preset `serving` for live serving, and the preset `paper` as published, for comparison."""

from app.editors.fitting.foundation import Presets
from app.editors.lora_mixture import paper, serving

PRESETS: Presets = {"serving": serving.build, "paper": paper.build}
