"""GRACE: the preset `serving` for live serving, and the preset `paper` as published, for comparison."""

from app.editors.fitting.foundation import Presets
from app.editors.grace import paper, serving

PRESETS: Presets = {"serving": serving.build, "paper": paper.build}
