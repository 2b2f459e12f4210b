"""Truncated archives, slow servers, invalid weights, secrets and formulas: a result or one line."""

import csv
import hashlib
import io
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from pipeline.config.schema import Dataset, Decode
from pipeline.download import archives, sources, urls
from pipeline.download.urls import download, named, shown
from pipeline.errors import UserError
from pipeline.report import figures
from pipeline.report.table import csv_text
from pipeline.tracking.run_record import clean
from tests.support.machines.served import serving
from tests.support.nets.image_nets import build, image_net
from tests.support.videos.packed import tarred, tree, zipped

DECODE = Decode(short_side=36, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.0)

# -- archives ----------------------------------------------------------------------------------------------------------


def members(count: int) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(tarfile.TarInfo(f"{number}.mp4"), bytes([number]) * 700) for number in range(count)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_tar_cut_between_its_members_is_refused(tmp_path: Path, mode: str, kept: int) -> None:
    whole = tarred(tmp_path / "whole.tar", *members(4)).read_bytes()
    content = whole[: kept * (512 + 1024)]
    packed = io.BytesIO()
    if mode == "w":
        packed.write(content)
    else:
        import bz2
        import gzip
        import lzma

        packed.write({"gz": gzip, "bz2": bz2, "xz": lzma}[mode[2:]].compress(content))  # type: ignore[attr-defined]
    path = tmp_path / f"a.tar{mode[1:].replace(':', '.')}"
    path.write_bytes(packed.getvalue())
    with pytest.raises(UserError, match="can't be unpacked") as caught:
        archives.unpack(path, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_tar_without_its_end_mark_is_refused_and_with_one_block_of_it_taken(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "whole.tar", *members(4)).read_bytes()
    end = 4 * (512 + 1024)
    for blocks, complete in ((0, False), (1, True), (2, True), (40, True)):
        path = tmp_path / f"{blocks}.tar"
        path.write_bytes(whole[:end] + bytes(512 * blocks))
        if complete:
            archives.unpack(path, tmp_path / f"out{blocks}")
            assert len(tree(tmp_path / f"out{blocks}")) == 4
        else:
            with pytest.raises(UserError, match="its end mark is missing"):
                archives.unpack(path, tmp_path / f"out{blocks}")


def dataset(source: str) -> Dataset:
    return Dataset("folder", source, None, {}, DECODE)


def test_a_local_archive_leaves_its_sha256(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"c/1.mp4": b"1"})
    videos = tmp_path / "data" / "v"
    sources.fetch("v", dataset("a.zip"), tmp_path, videos)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in (videos / sources.MADE).read_text()
    before = (videos / "c/1.mp4").stat().st_ino
    sources.fetch("v", dataset("a.zip"), tmp_path, videos)
    assert (videos / "c/1.mp4").stat().st_ino == before  # nothing to do


# -- what is written and removed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["..%2F..%2Fprecious%2Fx.zip", "..%2fprecious%2fx.zip", "%2Ftmp%2Fx.zip", "a/%2E%2E%2F%2E%2E%2Fx.zip", "x.zip%00"],
)
def test_a_name_is_taken_after_decoding(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    precious = tmp_path / "data" / "precious"
    precious.mkdir(parents=True)
    (precious / "thesis.tex").write_text("years")
    content = zipped(tmp_path / "x.zip", {"c/1.mp4": b"1"}).read_bytes()
    assert named(f"https://host/{path}") == "x.zip"
    with serving(content) as server:
        base = server.url.rpartition("/")[0]
        source = f"{base}/{path}#sha256={hashlib.sha256(content).hexdigest()}"
        try:
            sources.fetch("v", dataset(source), tmp_path, tmp_path / "data" / "videos" / "v")
        except UserError as error:
            assert "\n" not in str(error)
    assert (precious / "thesis.tex").read_text() == "years"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "x.zip"}


@pytest.mark.parametrize("kind", ["unpacking", "old"])
def test_only_folders_that_were_made_here_are_removed(tmp_path: Path, kind: str) -> None:
    zipped(tmp_path / "a.zip", {"c/1.mp4": b"1"})
    videos = tmp_path / "data" / "v"
    precious = videos.with_name(f".v.{kind}")
    precious.mkdir(parents=True)
    (precious / "thesis.tex").write_text("years")
    if kind == "old":
        sources.fetch("v", dataset("a.zip"), tmp_path, videos)
        zipped(tmp_path / "a.zip", {"c/2.mp4": b"22"})
    with pytest.raises(UserError, match="not put there by this project"):
        sources.fetch("v", dataset("a.zip"), tmp_path, videos)
    assert (precious / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_damaged_mark_is_made_again(tmp_path: Path, content: str) -> None:
    zipped(tmp_path / "a.zip", {"c/1.mp4": b"1"})
    videos = tmp_path / "data" / "v"
    sources.fetch("v", dataset("a.zip"), tmp_path, videos)
    (videos / sources.MADE).write_text(content)
    sources.fetch("v", dataset("a.zip"), tmp_path, videos)
    assert (videos / "c/1.mp4").read_bytes() == b"1"


# -- downloads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 50])
def test_a_download_that_drips_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(urls, "WINDOW", 0.2)
    ended = threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin = int((self.headers["Range"] or "bytes=0-")[6:-1])
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-999999/1000000")
            self.send_header("Content-Length", str(1_000_000 - begin))
            self.end_headers()
            while not ended.is_set():
                try:
                    self.wfile.write(b"x" * piece)
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(UserError, match=r"can't be read \(ReadTimeout\)"):
            download(f"http://127.0.0.1:{server.server_port}/a.zip", "0" * 64, tmp_path / "a.zip", lambda _: None)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


# -- weights -----------------------------------------------------------------------------------------------------------


def with_first(change) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    state = image_net()
    name = next(name for name, value in state.items() if value.is_floating_point() and value.dim() == 4)
    return {**state, name: change(state[name])}


UNFIT = {
    "int8": lambda value: value.to(torch.int8),
    "bool": lambda value: value > 0,
    "complex": lambda value: value.to(torch.complex64),
    "int64": lambda value: value.to(torch.int64),
    "float8": lambda value: value.to(torch.float8_e4m3fn),
    "sparse": lambda value: value.to_sparse(),
    "nan": lambda value: value.index_fill(0, torch.tensor([0]), float("nan")),
    "inf": lambda value: value.index_fill(0, torch.tensor([0]), float("inf")),
    "beyond float32": lambda value: value.double().index_fill(0, torch.tensor([0]), 1e300),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_weights_are_floating_and_finite_or_refused(tmp_path: Path, kind: str) -> None:
    torch.save(with_first(UNFIT[kind]), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"can't be used|is no file of weights") as caught:
        build("none", weights=tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_load(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save(
        {name: v.to(dtype) if v.is_floating_point() else v for name, v in image_net().items()}, tmp_path / "w.pt"
    )
    net = build("none", weights=tmp_path / "w.pt")
    assert all(value.dtype == torch.float32 for value in net.parameters())


def test_a_count_is_whole(tmp_path: Path) -> None:
    state = image_net()
    name = next(name for name in state if name.endswith("num_batches_tracked"))
    torch.save({**state, name: state[name].float()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="a count is a whole number"):
        build("none", weights=tmp_path / "w.pt")


# -- secrets -----------------------------------------------------------------------------------------------------------

SECRETS = [
    "https://me:leak@host/a",
    "https://me:le/ak@host/a?x=1",
    "https://me:leak/leak@leak@host:80/a",
    "https://me:leak",
    "https://me:leak/path",
    "https://me:le#ak@host/a",
    "https://host/a?auth=leak&b=2",
    "https://host/a?jwt=leak",
    "https://host/a?code=leak",
    "https://host/a?pwd=leak",
    "https://host/cb#access_token=leak&state=1",
    "https://host/a?X-Amz-Signature=leak",
    "postgresql://me:leak@db:5432/mlflow",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_cleaned(text: str) -> None:
    cleaned = clean(f"MLflow at {text} does not answer")
    assert "leak" not in cleaned and "ak@" not in cleaned and cleaned.endswith(" does not answer")


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/a/b?size=3#sha256=00",
        "http://127.0.0.1:5000",
        "http://[::1]:5000/a",
        "sqlite:////home/me/mlflow.db",
        "s3://bucket/a",
        "https://host/a@b/c.zip",
        "https://host:80, which is me@example.com's",
    ],
)
def test_addresses_without_secrets_stay(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("url", ["https://me:leak", "https://me:leak/a.zip", "https://me:leak1@host:leak2/a.zip"])
def test_a_mistyped_address_shows_no_password(tmp_path: Path, url: str) -> None:
    assert "leak" not in shown(url)
    with pytest.raises(UserError, match="no http or https address") as caught:
        download(url, "0" * 64, tmp_path / "a.zip")
    assert "leak" not in str(caught.value)


# -- what spreadsheets and browsers make of names ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "-cmd", "+x", "\tx", "=HYPERLINK(1)", "-", "+1+cmd"])
def test_a_name_is_no_formula(name: str) -> None:
    (_, (cell, number)) = csv.reader(io.StringIO(csv_text(["class", "n"], [[name, "-1.5"]])))
    assert cell == f"'{name}" and number == "-1.5"


@pytest.mark.parametrize("number", ["-1", "+2.50", "-0.0", "+1e-05", "-3.2%"])
def test_numbers_stay(number: str) -> None:
    assert csv_text(["n"], [[number]]) == f"n\n{number}\n"


@pytest.mark.parametrize("character", ["\x00", "\x08", "\x1b", "\x7f", "\ufffe"])
def test_an_svg_with_odd_names_is_xml(tmp_path: Path, character: str) -> None:
    with figures.drawing(tmp_path / "a.svg", 2.0, 2.0) as figure:
        figure.subplots().set_title(f"a{character}b<&")
    assert "a\ufffdb" in "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
