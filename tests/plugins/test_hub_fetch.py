"""Fetching for real: `referee zoo get` and the runs after it, typed by a person whose hub is on loopback."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from referee import zoos


@dataclass
class Hub:
    """The little of the hub's interface that fetching needs: HEAD and GET of files at a commit, with ranges.

    Attributes:
        files: by "owner/name", then path.
        gated: repositories that want a licence accepted.
        cut: paths whose first answer breaks off in the middle.
        asked: (method, path, range) of each request.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    revision: str = "c0ffee" + "0" * 34
    endpoint: str = ""


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub = self.hub
        head, _, rest = self.path.removeprefix("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        content = hub.files.get(head, {}).get(path)
        if head in hub.gated:
            self._refuse(403, "GatedRepo")
        elif head not in hub.files:
            self._refuse(401, "RepoNotFound")
        elif revision != hub.revision:
            self._refuse(404, "RevisionNotFound")
        elif content is None:
            self._refuse(404, "EntryNotFound")
        else:
            self._send(path, content, body)

    def _send(self, path: str, content: bytes, body: bool) -> None:
        hub = self.hub
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", hub.revision)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body and path in hub.cut:
            hub.cut.discard(path)
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        elif body:
            self.wfile.write(content[begin:])

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": made}))
    made.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


PLUGIN = """
import tomllib
from pathlib import Path
from referee.hooks import Spec, hookimpl
from referee_hub.catalogue import from_tables

HERE = Path(__file__).parent


def toy(options, place):
    from referee.testing import ToyReferee
    return ToyReferee()


@hookimpl
def referee_referees(register):
    register(Spec("toy", "likes a colour", toy))


@hookimpl
def referee_zoos(register):
    tables = tomllib.loads((HERE / "tiny.toml").read_text())
    register(from_tables("tiny", tables, (HERE / "preset.toml").read_text()))
"""
PRESET = """
zoo = "tiny"
height = 16
width = 32
[rules]
steps = 3
tail = 1
views = 1
restart_from = 1
restart_every = 2
[[referees]]
name = "toy"
[prior]
name = "stable-diffusion"
options = { cfg = 5.0, template = "{prompt}" }
"""


@dataclass
class Person:
    """Who types `referee ...` in a machine of their own, whose hub is the one on loopback."""

    home: Path
    hub: Hub
    environment: dict[str, str] = field(default_factory=dict)

    def types(self, *words: str) -> tuple[int, str, str]:
        env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("HF_", "TRANSFORMERS_")) and "proxy" not in k.lower()
        }
        env |= {"HF_HOME": str(self.home / "hf"), "HF_ENDPOINT": self.hub.endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"XDG_DATA_HOME": str(self.home / "data"), "COLUMNS": "200"} | self.environment
        command = [sys.executable, "-m", "referee", *words, "--plugin", str(self.home / "tiny.py")]
        done = subprocess.run(command, cwd=self.home, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    @property
    def folder(self) -> Path:
        return self.home / "hf" / "hub" / "models--org--tiny" / "snapshots" / self.hub.revision


@pytest.fixture
def person(tmp_path: Path, hub: Hub, save_pipeline: Callable[..., None], request: pytest.FixtureRequest) -> Person:
    """The hub publishes a tiny Stable Diffusion (of the kind that a test may ask for) as the zoo "tiny"."""
    save_pipeline(tmp_path / "published", getattr(request, "param", "sd15"))
    paths = sorted(
        path for path in (tmp_path / "published").rglob("*") if path.suffix in (".json", ".safetensors", ".txt")
    )
    content = {path.relative_to(tmp_path / "published").as_posix(): path.read_bytes() for path in paths}
    hub.files["org/tiny"] = {name: data for name, data in content.items() if not name.startswith("taesd/")}
    hub.files["org/taesd"] = {
        name.removeprefix("taesd/"): content[name] for name in content if name.startswith("taesd/")
    }

    def entry(repository: str) -> dict[str, Any]:
        files = hub.files[repository].items()
        listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files}
        return {"repository": repository, "revision": hub.revision, "licence": "MIT", "files": listed}

    checkpoints = {"prior": entry("org/tiny") | {"for": "stable-diffusion"}}
    checkpoints["taesd"] = entry("org/taesd") | {"optional": True}
    tables = {"summary": "a tiny zoo", "preset": "tiny", "checkpoints": checkpoints}
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tables))
    (tmp_path / "preset.toml").write_text(PRESET)
    (tmp_path / "tiny.py").write_text(PLUGIN)
    return Person(tmp_path, hub)


@pytest.mark.parametrize("person", ["sd15", "sdxl"], indirect=True)
def test_fetched_checked_and_drawn_with(person: Person) -> None:
    code, said, error = person.types("zoo", "get", "tiny")
    assert code == 0, error
    total = sum(map(len, person.hub.files["org/tiny"].values()))
    assert f"to fetch: {zoos.amount(total)}" in said
    assert said.index("to fetch") < said.index(f"prior: {person.folder}")
    count = len(person.hub.files["org/tiny"])
    said = person.types("zoo", "check", "tiny")[1]
    assert said == f"{count} of {count} files are as published, by sha256\n"
    person.hub.asked.clear()
    code, said, error = person.types("generate", "a red circle", "--zoo", "tiny", "--out", "run")
    assert code == 0, error
    assert Image.open(person.home / "run" / "picture-0.png").size == (32, 16)
    assert person.types("zoo", "get", "tiny")[0] == 0
    assert person.hub.asked == [], "a run asks no hub, and what is whole is not asked for again"


def test_the_tiny_decoder_plays_by_name(person: Person) -> None:
    words = ("generate", "red", "--zoo", "tiny", "--prior", "stable-diffusion:vae=zoo:taesd,cfg=5", "--out", "run")
    assert person.types("zoo", "get", "tiny", "prior")[0] == 0
    code, _, error = person.types(*words)
    assert code == 2
    assert "zoo's taesd is not whole: config.json of org/taesd" in error
    assert "referee zoo get tiny taesd" in error
    assert person.types("zoo", "get", "tiny", "taesd")[0] == 0
    assert person.types(*words)[0] == 0
    assert 'vae = "zoo:taesd"' in (person.home / "run" / "run.toml").read_text()


def test_a_download_that_breaks_off_goes_on_where_it_broke(person: Person) -> None:
    """Of a file larger than the pieces of 10 MB in which the library writes."""
    save_file({"w": torch.arange(6_400_000, dtype=torch.float32)}, person.home / "big.safetensors")
    content = (person.home / "big.safetensors").read_bytes()
    person.hub.files["org/tiny"] = {"big.safetensors": content}
    person.hub.cut.add("big.safetensors")
    listed = {"big.safetensors": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    entry = {"repository": "org/tiny", "revision": person.hub.revision, "files": listed}
    tables = {"summary": "one file", "preset": "tiny", "checkpoints": {"big": entry}}
    (person.home / "tiny.toml").write_text(tomli_w.dumps(tables))
    code, _, error = person.types("zoo", "get", "tiny")
    assert code == 0, error
    first, second = (where for method, _, where in person.hub.asked if method == "GET")
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= len(content) // 2
    assert (person.folder / "big.safetensors").read_bytes() == content


def test_a_file_that_is_not_what_was_published_is_refused_and_removed(person: Person) -> None:
    name = "vae/diffusion_pytorch_model.safetensors"
    good = person.hub.files["org/tiny"][name]
    person.hub.files["org/tiny"][name] = good[:-1] + bytes([good[-1] ^ 1])
    code, _, error = person.types("zoo", "get", "tiny")
    assert code == 2
    assert f"{name} of org/tiny came from {person.hub.endpoint} and is not what was published: it has sha256" in error
    assert not (person.folder / name).exists()
    assert "diffusion_pytorch_model.safetensors of org/tiny" in person.types("generate", "red", "--zoo", "tiny")[2]
    person.hub.files["org/tiny"][name] = good
    assert person.types("zoo", "get", "tiny")[0] == 0


def test_a_file_that_was_damaged_here_is_fetched_again(person: Person) -> None:
    assert person.types("zoo", "get", "tiny")[0] == 0
    path = person.folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    real = path.resolve()
    real.chmod(0o644)
    save_file({key: tensor + 1 for key, tensor in weights.items()}, real, {"format": "pt"})
    code, _, error = person.types("zoo", "check", "tiny")
    assert code == 2
    assert "vae/diffusion_pytorch_model.safetensors has sha256" in error
    assert "referee zoo get tiny" in error
    person.hub.asked.clear()
    assert person.types("zoo", "get", "tiny")[0] == 0
    assert {name for _, name, _ in person.hub.asked} == {"vae/diffusion_pytorch_model.safetensors"}
    assert person.types("zoo", "check", "tiny")[0] == 0


def gated(person: Person) -> None:
    person.hub.gated.add("org/tiny")


def gone(person: Person) -> None:
    del person.hub.files["org/tiny"]


def moved(person: Person) -> None:
    person.hub.revision = "d" * 40


def renamed(person: Person) -> None:
    del person.hub.files["org/tiny"]["model_index.json"]


def offline(person: Person) -> None:
    person.environment["HF_HUB_OFFLINE"] = "1"


def away(person: Person) -> None:
    person.hub.endpoint = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (gated, ["is gated: accept its licence at", "/org/tiny, then `hf auth login`"]),
        (gone, ["has no such repository, or shows it to few", "`hf auth login`"]),
        (moved, ["is not at", "in the revision c0ffee"]),
        (renamed, ["model_index.json of org/tiny", "is not at"]),
        (offline, ["is not here, and HF_HUB_OFFLINE forbids to fetch it"]),
        # The library tries for 20 seconds.
        pytest.param(away, ["http://127.0.0.1:9 is not to be reached", "HF_ENDPOINT"], marks=pytest.mark.slow),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_stands_in_the_way_is_one_sentence(
    person: Person, what: Callable[[Person], None], says: list[str]
) -> None:
    what(person)
    code, said, error = person.types("zoo", "get", "tiny")
    assert code == 2, error
    assert "to fetch:" in said
    (line,) = [text for text in error.splitlines() if text.startswith("referee:")]
    for text in ["org/tiny", *says]:
        assert text in line, line
    assert "Traceback" not in error
