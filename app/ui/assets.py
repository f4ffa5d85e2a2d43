"""Static files of the package, read and compressed once, with names that contain a hash so that browsers cache them."""

import gzip
import hashlib
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Assets:
    def __init__(self) -> None:
        self._files = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in KINDS}
        self._zipped = {name: gzip.compress(data, mtime=0) for name, data in self._files.items()}
        self._marks = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self._files.items()}

    def url(self, name: str) -> str:
        return f"/ui/static/{self._marks[name]}/{name}"

    async def answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self._marks.get(name) != request.path_params["mark"]:
            raise HTTPException(404)
        headers = {
            "Content-Type": f"{KINDS[Path(name).suffix]}; charset=utf-8",
            "Cache-Control": "public, max-age=31536000, immutable",
            "Vary": "Accept-Encoding",
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self._zipped[name], headers={**headers, "Content-Encoding": "gzip"})
        return Response(self._files[name], headers=headers)


@cache
def shipped_assets() -> Assets:
    """The files of the package. A process reads and compresses them once, for all its apps."""
    return Assets()
