"""The engine's thread."""

import torch

from app.bootstrap import engine_threads
from app.config import Settings
from app.engine.owner import EngineOwner
from tests.rig import Rig


def test_torchs_workers_are_the_engines_alone() -> None:
    """Two pools of workers on the same cores make each other slow."""
    before = torch.get_num_threads()
    try:
        wanted = engine_threads(Settings(_env_file=None, torch_threads=3))  # type: ignore[call-arg]
        owner = EngineOwner(Rig().engine, wanted)
        owner.start()
        assert owner.call(torch.get_num_threads).result(10) == 3
        assert torch.get_num_threads() == 1
        owner.stop()
    finally:
        torch.set_num_threads(before)
