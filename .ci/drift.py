"""Names the packages whose newest versions are not those of deploy/constraints.txt, from a report of `pip install`.

    pip install --dry-run --report report.json ... && python drift.py report.json

The exit status is 1 where any differs.
"""

import json
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CONSTRAINTS = Path(__file__).parents[1] / "deploy/constraints.txt"


def constrained() -> dict[str, Version]:
    """The versions that the constraints name for this Python."""
    lines = CONSTRAINTS.read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version)
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def main(report: Path) -> int:
    pins, drifted = constrained(), 0
    found = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    newest = {canonicalize_name(each["name"]): Version(each["version"]) for each in found}
    del newest["errata"]
    for name, version in sorted(newest.items()):
        held = pins.get(name)
        if held is None or Version(version.public) != held:  # a build of the same version is no other version
            drifted += 1
            print(f"{name}: {'not constrained' if held is None else f'constrained to {held}'}, newest {version}")
    print(f"{drifted} of {len(newest)} packages have moved on from deploy/constraints.txt")
    return int(drifted > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
