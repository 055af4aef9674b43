"""A zoo's checkpoints: which a run needs, what is wrong with their files, and `referee zoo` over them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from referee import zoos
from referee.command.app import main
from referee.errors import OptionError, WeightsError
from referee.hooks import Checkpoint, ZooFile


@pytest.fixture
def whole(tmp_path: Path) -> Checkpoint:
    """A checkpoint whose two files are here, as published."""
    save_file({"w": torch.arange(8.0)}, tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text("{}")
    files = tuple(
        ZooFile(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(tmp_path.iterdir())
    )
    options = {"toy": {"model": str(tmp_path)}}
    return Checkpoint("prior", tmp_path, files, options, source="org/name@" + "a" * 40, mend="Get it.")


def test_a_whole_checkpoint_has_no_faults(whole: Checkpoint) -> None:
    assert list(zoos.faults(whole)) == []
    zoos.require(whole)
    assert [zoos.verify(whole, file) for file in whole.files] == ["", ""]


def missing(folder: Path) -> None:
    (folder / "w.safetensors").unlink()


def shorter(folder: Path) -> None:
    path = folder / "w.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (missing, r"prior is not whole: w.safetensors of org/name \(\d+ B\) is missing in .*Get it."),
        (shorter, r"w.safetensors of org/name \(\d+ B\) has \d+ bytes and should have \d+ in"),
    ],
)
def test_damage_is_told(whole: Checkpoint, damage: Callable[[Path], None], says: str) -> None:
    damage(whole.folder)
    with pytest.raises(WeightsError, match=says):
        zoos.require(whole)


def test_a_cut_file_of_unknown_size_is_told_by_its_header(whole: Checkpoint) -> None:
    shorter(whole.folder)
    unknown = Checkpoint("prior", whole.folder, (ZooFile("w.safetensors"),))
    with pytest.raises(WeightsError, match=r"w.safetensors it has \d+ bytes where its header promises \d+"):
        zoos.require(unknown)


def test_several_faults_are_counted_and_weighed(tmp_path: Path) -> None:
    files = (ZooFile("a.json", 5), ZooFile("b.safetensors", 2_000_000_000), ZooFile("c.json"))
    with pytest.raises(WeightsError, match=r"a.json \(5 B\) is missing in .*, and 2 more, 2.00 GB in all\."):
        zoos.require(Checkpoint("x", tmp_path, files))


def test_another_content_of_the_same_size_is_seen_by_its_sum_alone(whole: Checkpoint) -> None:
    save_file({"w": torch.arange(8.0) + 1}, whole.folder / "w.safetensors")
    assert list(zoos.faults(whole)) == []
    assert "has sha256" in zoos.verify(whole, whole.files[1])
    assert zoos.verify(whole, ZooFile("w.safetensors", whole.files[1].size)) == "", "without a sum the size must do"


def test_what_a_run_needs() -> None:
    prior = Checkpoint("prior", Path("p"), options={"sd": {"model": "p"}})
    clip = Checkpoint("clip", Path("c"), options={"clip": {"model": "c"}})
    tiny = Checkpoint("tiny", Path("t"))
    shelf = [prior, clip, tiny]
    assert zoos.needed(shelf, [("sd", {}), ("kornia", {})]) == [prior]
    assert zoos.needed(shelf, [("sd", {"model": "/own"}), ("clip", {"text": "x"})]) == [clip]
    assert zoos.needed(shelf, [("sd", {"vae": "zoo:tiny"})]) == [prior, tiny]
    assert zoos.options_of(shelf, "sd") == {"model": "p"}


def test_a_reference_becomes_a_folder() -> None:
    shelf = [Checkpoint("tiny", Path("/t"))]
    assert zoos.resolve(shelf, {"vae": "zoo:tiny", "cfg": 3}) == {"vae": "/t", "cfg": 3}
    with pytest.raises(OptionError, match=r"vae=zoo:tinny: this zoo has no 'tinny'. Did you mean 'tiny'"):
        zoos.resolve(shelf, {"vae": "zoo:tinny"})
    with pytest.raises(OptionError, match="There are none"):
        zoos.resolve([], {"vae": "zoo:tiny"})


PLUGIN = """
import json
from pathlib import Path
from referee.errors import WeightsError
from referee.hooks import Checkpoint, ZooFile, ZooSpec, hookimpl

HERE = Path(__file__).parent


def shelf():
    files = (ZooFile("a.json", 2, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),)
    options = {"toy": {"model": str(HERE / "prior")}}
    prior = Checkpoint("prior", HERE / "prior", files, options, "org/name@abc", "MIT", "A note.", "Get it.")
    huge = Checkpoint("huge", HERE / "huge", (ZooFile("b.json", 10**18),), {}, "org/b@abc", "MIT", optional=True)
    made = Checkpoint("made", HERE / "made", (ZooFile("c.json"),), mend="Make it yourself.")
    return [prior, huge, made]


def get(checkpoint):
    checkpoint.folder.mkdir(exist_ok=True)
    (checkpoint.folder / "a.json").write_text("{}")


@hookimpl
def referee_zoos(register):
    register(ZooSpec("small", "a small zoo", "paper", shelf, get=get))
"""


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`referee zoo ...` with the small zoo alone: exit code, what it prints, what it says of errors."""
    (tmp_path / "small.py").write_text(PLUGIN)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        line = ["referee", "zoo", *words, "--no-plugins", "--plugin", str(tmp_path / "small.py")]
        monkeypatch.setattr("sys.argv", line)
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return run


def test_list_says_what_is_here(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    assert command("list")[1].split() == ["small", "missing", "2", "B", "a", "small", "zoo"]
    command("get", "small")
    (row,) = json.loads(command("list", "--json")[1])
    assert row == {"name": "small", "summary": "a small zoo", "preset": "paper", "bytes": 2, "state": "partly"}
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "c.json").touch()
    assert "here" in command("list")[1]


def test_show_says_everything(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    _, shown, _ = command("show", "small")
    for word in (
        "prior",
        "toy",
        "org/name@abc",
        "MIT",
        "2 B",
        "missing",
        "(optional)",
        "A note.",
        str(tmp_path / "prior"),
    ):
        assert word in shown, word
    assert "Make it yourself." in shown
    rows = json.loads(command("show", "small", "--json")[1])["checkpoints"]
    assert [row["name"] for row in rows] == ["prior", "huge", "made"]
    assert rows[0]["files"][0]["bytes"] == 2


def test_get_fetches_what_is_not_optional(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, said, _ = command("get", "small")
    assert code == 0
    assert "to fetch: 2 B" in said
    assert "made: not fetched. Make it yourself." in said
    assert (tmp_path / "prior" / "a.json").is_file()
    assert "to fetch: 0 B" in command("get", "small", "prior")[1]


def test_get_refuses_what_the_disk_cannot_hold(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, error = command("get", "small", "prior", "huge")
    assert code == 2
    assert "1000000000.00 GB are to be fetched, and the disk of" in error
    assert not (tmp_path / "prior").exists(), "nothing is begun that cannot be ended"


def test_check_reads_everything(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    command("get", "small")
    code, said, _ = command("check", "small", "prior")
    assert (code, said) == (0, "1 of 1 files are as published, by sha256\n")
    (tmp_path / "prior" / "a.json").write_text("[]")
    code, said, error = command("check", "small", "prior")
    assert code == 2
    assert "prior: a.json: has sha256 4f53cda18c2baa0c" in said
    assert "The zoo small is not whole: a.json has sha256" in error
    assert "Get it." in error
    found = json.loads(command("check", "small", "--json")[1])
    assert [row["file"] for row in found if row["fault"]] == ["a.json", "c.json"]


EMPTY = b"\x02" + bytes(7) + b"{}"  # as safetensors.torch.save({}) has it
LOOSE = {"config.json": '{"a": 1}', "merges.txt": "a b", "w.safetensors": save({"a": torch.ones(2)})}


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("config.json", "garbage", "is not JSON: Expecting value"),
        ("config.json", "", "is not JSON"),
        ("config.json", b'{"a": "\xff"}', "is not JSON"),
        ("config.json", "[" * 100_000, "is not JSON"),
        ("config.json", "{}", "is empty"),
        ("merges.txt", " \n", "is empty"),
        ("merges.txt", b"\xff", "is not text"),
        ("w.safetensors", "{}", "header"),
        ("w.safetensors", EMPTY, "holds no tensors"),
        ("w.safetensors", LOOSE["w.safetensors"][:-1], "where its header promises"),
    ],
)
def test_what_has_no_published_sum_is_looked_at(name: str, content: str | bytes, fault: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint("made", tmp_path, tuple(ZooFile(each) for each in LOOSE))
    for each, sound in LOOSE.items():
        (tmp_path / each).write_bytes(sound.encode() if isinstance(sound, str) else sound)
    assert [zoos.verify(checkpoint, file) for file in checkpoint.files] == ["", "", ""]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    found = {file.name: zoos.verify(checkpoint, file) for file in checkpoint.files}
    assert fault in found.pop(name)
    assert set(found.values()) == {""}


def test_check_claims_no_more_than_it_saw(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    command("get", "small")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "c.json").write_text("garbage")
    code, said, error = command("check", "small")
    assert code == 2
    assert "made: c.json: is not JSON" in said
    assert "1 of 2 files are as published, by sha256" in said
    assert "Make it yourself." in error
    (tmp_path / "made" / "c.json").write_text('{"a": 1}')
    assert command("check", "small") == (
        0, "1 of 2 files are as published, by sha256\n"
        "1 of 2 have no published sum: their form is whole, more cannot be told\n", "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "smal"), "Did you mean 'small'"),
        (("get", "small", "prio"), "The zoo small has no 'prio'. Did you mean 'prior'"),
        (("check", "small", "x"), "There are: huge, made, prior."),
    ],
)
def test_a_wrong_name_is_one_sentence(
    command: Callable[..., tuple[int, str, str]], words: tuple[str, ...], says: str
) -> None:
    code, said, error = command(*words)
    assert (code, said) == (2, "")
    assert says in error
