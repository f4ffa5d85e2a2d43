"""Names the installed packages whose versions are not those of deploy/constraints.txt."""

from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

BRINGS_ITSELF = {"errata", "pip"}


def constrained() -> dict[str, Version]:
    """What the constraints say for this Python."""
    lines = (Path(__file__).parents[1] / "deploy/constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version)
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def main() -> None:
    pins, drifted = constrained(), 0
    found = {canonicalize_name(each.name): Version(each.version) for each in distributions()}
    for name in sorted(found.keys() - BRINGS_ITSELF):
        newest = Version(found[name].public)  # a build of the same version is no other version
        if name not in pins:
            print(f"{name}: not constrained, newest {newest}")
        elif newest != pins[name]:
            print(f"{name}: constrained to {pins[name]}, newest {newest}")
        else:
            continue
        drifted += 1
    print(f"{drifted} of {len(found)} packages differ from deploy/constraints.txt")


if __name__ == "__main__":
    main()
