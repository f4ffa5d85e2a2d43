"""A process that appends edits until it is killed, and prints each one only after `append` has returned.

Each line: revision, edit id, SHA-256 of the tensors. Usage: writer.py URL PREFIX NAME SEED
"""

import hashlib
import os
import random
import sys

from app.domain.errors import LostRace
from app.store.open import open_log
from tests.domain.samples import committed

LARGEST_TENSORS_BYTES = 64 * 2**10


def main(url: str, prefix: str, name: str, seed: int) -> None:
    assert "torch" not in sys.modules, "the store must not import torch"
    rng = random.Random(seed)
    log = open_log(url, redis_prefix=prefix)
    while True:
        revision = log.head() + 1
        tensors = rng.randbytes(rng.randrange(LARGEST_TENSORS_BYTES))
        edit_id = f"{name}-{revision}"
        try:
            log.append(committed(revision, edit_id, tensors=tensors))
        except LostRace:
            continue
        # One write system call a line: nothing acknowledged waits in a buffer that the kill would empty.
        os.write(1, f"{revision} {edit_id} {hashlib.sha256(tensors).hexdigest()}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
