"""Verifies a log that `errata log export` wrote, on any machine: python3 verify-log.py FILE [HASH]

Each line is an event with all that its hash is of; its `prev` is the hash of the line before. HASH is the last hash as
it is known from elsewhere (`errata status`): without it, a log that was forged as a whole would go unnoticed.
"""

import hashlib
import json
import sys

SEALED = 0x8000  # under ERRATA_LOG_SECRET hashes are HMACs, which `errata log verify` checks


def hash_of(line: dict) -> str:
    header = {name: line[name] for name in ("kind", "prev", "event")}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    payload = bytes.fromhex(line["payload"])
    sizes = line["schema"].to_bytes(2, "big") + len(text).to_bytes(4, "big") + len(payload).to_bytes(8, "big")
    return hashlib.sha256(b"ERRATA" + sizes + text + payload).hexdigest()


def verify(rows, known: str | None = None) -> str:
    first = last = prev = None
    for number, line in enumerate(map(json.loads, rows), 1):
        revision, first = line["event"]["revision"], first or line["event"]["revision"]
        if line["schema"] & SEALED:
            raise SystemExit(f"Line {number} is sealed with a secret: use `errata log verify`.")
        if hash_of(line) != line["hash"]:
            raise SystemExit(f"Line {number} (revision {revision}) is not what was written: its hash is another.")
        if last and (line["prev"] != prev or revision != last + 1):
            raise SystemExit(f"Line {number} (revision {revision}) does not follow the line before it.")
        last, prev = revision, line["hash"]
    if last is None or (known and prev != known):
        raise SystemExit(f"The log does not end with {known or 'any event'}: it is cut short, or another one.")
    return f"{rows.name} is whole: revisions {first} to {last}, hash {prev}"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(verify(file, *sys.argv[2:]))
