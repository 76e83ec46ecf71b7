"""`hpcddl report`: what the page says is what the runs' files say, and a browser can show it."""

import csv
import json
import re
import shlex
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from hpcddl.analysis import curvature_report, interpolate
from hpcddl.analysis.landscape_report import write as write_landscape
from hpcddl.analysis.line import Line, Losses
from hpcddl.analysis.spectral_density import Quadrature
from hpcddl.analysis.spectrum import Curvature, SpectrumPlan
from hpcddl.analysis.surface import Landscape, SurfacePlan
from hpcddl.common.errors import UserError
from hpcddl.common.study import StudyFolder
from hpcddl.report.analyses import curvatures, landscapes, lines
from hpcddl.report.curves import LEARNING
from hpcddl.report.looks import MOST, looks
from hpcddl.report.printed import printed
from hpcddl.report.report import write_page
from hpcddl.report.sheets import settings
from hpcddl.report.target import parse_target
from hpcddl.report.time_bars import SHOWN, by_kind
from hpcddl.run.config import load_config
from hpcddl.run.records import Run, read_run
from tests.conftest import Launch
from tests.report.written import write_run
from tests.synthetic import write_recipe, write_shards

CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """What a page points to, and its tables as text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.scripts = 0
        self.cells: list[str] = []
        self.blocks: list[str] = []
        self._inside = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self._inside = tag
        self.scripts += tag == "script"
        self.links += [v for k, v in attributes if k in ("href", "src") and v is not None]
        if tag == "img":
            self.images.append(values)

    def handle_data(self, data: str) -> None:
        if self._inside == "td":
            self.cells.append(data)
        if self._inside == "pre":
            self.blocks.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, hpcddl: Launch) -> list[Path]:
    """SSGD and DPSGD of two learners, with diagnostics."""
    folder = tmp_path_factory.mktemp("trained")
    shards = write_shards(folder / "shards")
    for strategy in ("ssgd", "dpsgd"):
        recipe = write_recipe(folder / "r.yaml", shards, strategy)
        words = [recipe, "epochs=2", "diagnostics.every=4", "description=<b>&"]
        done = hpcddl("train", *words, "--out", folder / strategy, ranks=2)
        assert done.returncode == 0, done.stderr
    return [folder / "ssgd", folder / "dpsgd"]


@pytest.fixture(scope="module")
def page(trained: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two real runs and one that is going on, with results beside one of them."""
    going = tmp_path_factory.mktemp("going") / "_run=$1_$2"
    shutil.copytree(trained[1], going)
    (going / "summary.json").unlink()
    with open(going / "metrics.jsonl", "a") as file:
        file.write('{"kind": "tra')
    write_solutions(trained[0])
    out = tmp_path_factory.mktemp("page")
    runs = [read_run(folder, unfinished=True) for folder in (*trained, going)]
    write_page(runs, None, out, runs[2].training[-1]["time"])
    return out


def test_the_page_needs_nothing_but_itself(page: Path) -> None:
    """Images are inlined and described, links lead to files beside it, nothing is a script."""
    found = Page(page / "index.html")
    assert found.scripts == 0
    assert not re.search(r"https?:|@import|url\(", (page / "index.html").read_text())
    beside = [link for link in found.links if not link.startswith("data:")]
    assert {str(path.relative_to(page)) for path in page.rglob("*.*")} == {"index.html", *beside}
    assert all(str(image["src"]).startswith("data:image/") for image in found.images)
    assert all(image["alt"] for image in found.images)
    pictures = list((page / "figures").glob("*.pdf"))
    assert len(pictures) == len(found.images)
    assert all(picture.read_bytes().startswith(b"%PDF") for picture in pictures)
    names = {picture.stem for picture in pictures}
    assert {"heldout-loss", "effective-rate", "noise", "time", "landscape", "spectrum"} < names


def test_numbers_and_commands_are_those_of_the_runs(page: Path, trained: list[Path]) -> None:
    found = Page(page / "index.html")
    for folder, row in zip(trained, read(page / "runs.csv"), strict=False):
        summary = json.loads((folder / "summary.json").read_text())
        assert float(row["held-out loss"]) == summary["heldout_loss"]
        assert f"{summary['heldout_loss']:.4f}" in found.cells
        again = f"mpirun -np 2 hpcddl {shlex.join(summary['command'])}"
        assert again in found.blocks
    assert [row["state"] for row in read(page / "runs.csv")] == ["done", "done", "running"]
    records = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    for kind, file in (("evaluation", "evaluations"), ("diagnostics", "diagnostics")):
        mine = [row for row in read(page / f"{file}.csv") if Path(row["run"]).name == "ssgd"]
        expected = [record for record in records if record["kind"] == kind]
        key = "heldout_loss" if kind == "evaluation" else "noise"
        assert [float(row[key]) for row in mine] == [record[key] for record in expected]


def test_what_the_user_wrote_is_text_not_html(page: Path) -> None:
    text = (page / "index.html").read_text()
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it_on_a_phone_and_a_desk(page: Path, width: int, tmp_path: Path) -> None:
    """Every image decodes, nothing sticks out sideways, and the console stays empty."""
    measure = """
        const shown = document.querySelector("iframe").contentDocument;
        const broken = [...shown.images].filter(image => !image.naturalWidth).length;
        const beyond = shown.documentElement.scrollWidth - shown.documentElement.clientWidth;
        document.title = `${shown.images.length} images: ${broken} broken; ${beyond} px beyond`;
    """
    # A window has a least width, a frame has none.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<!DOCTYPE html><title></title><iframe width={width} height=800 "
        f'srcdoc="{escape((page / "index.html").read_text())}"></iframe>'
        f"<script>addEventListener('load', () => {{{measure}}})</script>"
    )
    shown = browse(tmp_path, frame, f"--window-size={width + 100},900", "--dump-dom")
    images = len(Page(page / "index.html").images)
    assert f"<title>{images} images: 0 broken; 0 px beyond</title>" in shown.stdout
    assert "CONSOLE" not in shown.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium")
def test_a_browser_prints_it(page: Path, tmp_path: Path) -> None:
    browse(tmp_path, page / "index.html", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    printed_page = (tmp_path / "page.pdf").read_bytes()
    assert printed_page.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed_page)) > 1


def browse(folder: Path, page: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    assert CHROMIUM
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    common += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0"]
    words = [CHROMIUM, *common, *options, page.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)


def many(folder: Path, count: int, labels: int) -> list[Run]:
    """Runs of so many strategies in turn."""
    folder.mkdir(exist_ok=True)
    runs = []
    for i in range(count):
        path = write_run(folder / f"run{i:02d}", [4.0, 3.0 - i / 100])
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["strategy"] = {"name": f"strategy{i % labels}"}
        (path / "config.yaml").write_text(yaml.safe_dump({**config, "seed": i}))
        runs.append(read_run(path))
    return runs


def test_fifty_runs_make_a_page(tmp_path: Path) -> None:
    runs = many(tmp_path / "runs", 50, 3)
    write_page(runs, None, tmp_path, 0.0)
    assert [row["run"] for row in read(tmp_path / "runs.csv")] == [f"run{i:02d}" for i in range(50)]
    assert sum(cell == "3.0000" for cell in Page(tmp_path / "index.html").cells) == 2  # last, best


@pytest.mark.parametrize(("count", "labels", "entries"), [(7, 3, 7), (8, 3, 3), (50, 20, 7)])
def test_a_legend_has_no_more_entries_than_colours(
    count: int, labels: int, entries: int, tmp_path: Path
) -> None:
    """Each run its own, or one for a strategy, and the rest in grey together."""
    found = looks(many(tmp_path / "runs", count, labels))
    assert len({look.entry for look in found}) == entries <= MOST
    by_entry = {look.entry: (look.colour, look.style) for look in found}
    assert len(set(by_entry.values())) == entries
    said = [int(number) for entry in by_entry for number in re.findall(r": (\d+) runs", entry)]
    assert sum(said) == (count if count > MOST else 0)


def test_names_that_are_the_same_when_shortened_are_numbered(tmp_path: Path) -> None:
    long = "x" * 30
    runs = [read_run(write_run(tmp_path / f"{long}{i}{long}", [3.0])) for i in range(2)]
    assert [look.entry.partition(":")[0] for look in looks(runs)] == ["1", "2"]


def test_settings_in_which_runs_differ(tmp_path: Path) -> None:
    a = read_run(write_run(tmp_path / "a", [3.0]))
    b = read_run(write_run(tmp_path / "b", [3.0], learners=1))
    assert settings([a, b]) == [["run", "learners"], ["a", 4], ["b", 1]]
    assert settings([a]) == [["run"], ["a"]]


def test_links_once_called_network_are_no_other_setting(tmp_path: Path) -> None:
    """A run of an older version beside a new one, and beside one of other links."""
    folders = [write_run(tmp_path / name, [3.0]) for name in ("old", "new", "slow")]
    same, slow = {"emulate": None}, {"emulate": {"round_delay_seconds": 1.0}}
    for folder, links in zip(
        folders, ({"network": same}, {"links": same}, {"links": slow}), strict=True
    ):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | links))
    old, new, other = map(read_run, folders)
    assert settings([old, new]) == [["run"], ["old"], ["new"]]
    assert old.config == new.config
    (head, *_) = settings([old, other])
    assert all(key.startswith("links.emulate") for key in head[1:])
    assert len(head) > 1


def test_bars_add_up_to_all_seconds(tmp_path: Path) -> None:
    seconds = {f"kind{i}": float(2**i) for i in range(SHOWN + 3)}
    run = read_run(write_run(tmp_path / "a", [3.0], seconds=seconds))
    found = by_kind([run])
    assert len(found) == SHOWN + 1
    assert sum(sum(values) for values in found.values()) == sum(seconds.values())
    assert list(found)[-1] == "all else"


def test_a_loss_that_is_not_finite_is_no_point(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "bad", [4.0, None]))
    assert LEARNING[0].points(run) == [(1, 4.0)]


def test_a_run_without_a_summary_runs_or_has_stopped(tmp_path: Path) -> None:
    """Records ten seconds apart: a silence of a minute is allowed, a longer one is not."""
    folder = write_run(tmp_path / "run", [4.0, 3.0])
    (folder / "summary.json").unlink()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "evalua')
    run = read_run(folder, unfinished=True)
    assert (run.state(1070.0), run.state(1071.0)) == ("running", "stopped")
    assert run.summary["heldout_loss"] == 3.0
    assert run.summary["learners"] is None
    assert not run.summary["diverged"]


def test_damaged_checkpoints_are_not_read(tmp_path: Path) -> None:
    """Of a resumed run, whose newest had been set aside."""
    folder = write_run(tmp_path / "run", [4.0, 3.0])
    (folder / "summary.json").unlink()
    for name, text in (("epoch-0001", '{"learners": 2}'), ("epoch-0002.damaged", "{")):
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "manifest.json").write_text(text)
    assert read_run(folder, unfinished=True).summary["learners"] == 2


def test_runs_that_have_not_begun_are_left_out(tmp_path: Path, command: Launch) -> None:
    """As after a job that failed early; where none has begun there is no page."""
    run, none = write_run(tmp_path / "run", [4.0, 3.0]), tmp_path / "none"
    none.mkdir()
    done = command("report", run, none, "--begun", "--out", tmp_path / "page")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"hpcddl: warning: run {none}: has not begun; left out\n"
    assert (tmp_path / "page" / "index.html").is_file()
    done = command("report", none, "--begun")
    assert (done.returncode, done.stderr) == (2, "hpcddl: error: no run has begun\n")


def test_refuses_what_is_no_run(tmp_path: Path, command: Launch) -> None:
    """In one line, with status 2."""
    run = write_run(tmp_path / "run", [4.0, 3.0])
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "evalua')  # a run that has ended writes no more
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("a: 1")
    (foreign / "metrics.jsonl").touch()
    good = write_run(tmp_path / "good", [4.0])
    for words, what in (
        ([run], "not as training writes it"),
        ([foreign], "not as training writes it"),
        ([tmp_path], "not a run directory"),
        ([good, good], "given twice"),
    ):
        done = command("report", *words)
        assert done.returncode == 2
        assert what in done.stderr
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("index.html"))


@pytest.mark.parametrize(
    ("recipe", "overrides", "value"),
    [
        ("swb300.dpsgd", ["global_batch=8192", "seed=3"], ("a.table4", 1.66)),
        ("swb2000.ssgd", [], ("a.table4", 1.46)),
        ("cifar10.vgg19.ssgd", ["global_batch=4096"], ("a.table3", 92.68)),
        ("swb300.dpsgd", ["global_batch=512"], None),  # the paper has no such batch
        ("swb300.dpsgd", ["schedule.rate=0.2"], None),
        ("swb300.dpsgd", ["strategy.topology=ring"], None),
        ("swb300.dpsgd", ["data.path=shards/mine"], None),
    ],
)
def test_a_paper_s_number_where_settings_agree(
    recipe: str, overrides: list[str], value: tuple[str, float] | None, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run", [3.0])
    config = load_config(recipe, overrides).plain()
    older = {**config, "network": config["links"]}  # whose version called the section so
    del older["links"]
    for one in (config, older):
        (folder / "config.yaml").write_text(yaml.safe_dump(one))
        (found,) = printed([read_run(folder)])
        assert [(number.table, number.value) for number in found] == ([value] if value else [])


PLAN = SurfacePlan(3, 0.5, 0, "filter", "heldout", 8, None, "eval", 0)
SPECTRUM = SpectrumPlan("train", 8, None, "eval", 2, 1e-3, 2, 2, 0, 0.1, "filter", 0, 1)
LINE = Line(-1.0, 2.0, 4, 8, None, "recomputed", 2, 0)
FACTS = {
    "strategy": "ssgd",
    "epoch": 2,
    "of": "train",
    "samples": 8,
    "available_samples": 9,
    "batch_norm": "none",
    "weights": 50,
}


def write_solutions(run: Path) -> tuple[Landscape, Curvature, Losses]:
    """What `hpcddl analyze` leaves in a run's directory, written by its own functions."""
    random = np.random.default_rng(0)
    facts = {**FACTS, "run": str(run)}
    surface, error = random.random((2, 3, 3))
    around = Landscape(run.name, facts, surface, error, (0.1, 0.2))
    probes = [Quadrature(random.random(2), np.array([0.4, 0.6])) for _ in range(2)]
    curved = Curvature(run.name, facts, np.array([3.0, 2.0]), -1.0, probes, None)
    between = {"runs": [str(run), "other"], "epochs": [2, 2], "strategies": ["ssgd", "dpsgd"]}
    between |= {"train_samples": 8, "heldout_samples": 8, "batch_norm": "none"}
    losses = Losses(between, *random.random((4, 4)))
    folders = [run / "analysis" / what for what in ("landscape", "curvature", "interpolate")]
    for folder in folders:
        folder.mkdir(parents=True)
    write_landscape([around], PLAN, StudyFolder(folders[0]))
    curvature_report.write([curved], SPECTRUM, StudyFolder(folders[1]))
    interpolate._write(losses, LINE, StudyFolder(folders[2]))
    return around, curved, losses


def test_what_was_analysed_is_read_back_as_it_was(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [3.0])
    around, curved, losses = write_solutions(run)
    runs = [read_run(run)]
    ((plan, (landscape_found,)),) = landscapes(runs).items()
    assert plan == PLAN
    np.testing.assert_array_equal(landscape_found.loss, around.loss)
    np.testing.assert_array_equal(landscape_found.error, around.error)
    assert landscape_found.centre == around.centre
    ((asked, (curvature_found,)),) = curvatures(runs).items()
    assert asked == SPECTRUM
    for found, probe in zip(curvature_found.spectrum, curved.spectrum, strict=True):
        np.testing.assert_array_equal(found.nodes, probe.nodes)
        np.testing.assert_array_equal(found.weights, probe.weights)
    ((line, between),) = lines(runs)
    np.testing.assert_array_equal(line.at, LINE.at)
    np.testing.assert_array_equal(between.heldout_error, losses.heldout_error)


def test_results_of_several_runs_lie_beside_them(tmp_path: Path) -> None:
    """`analyze landscape A B` writes to the folder that holds both."""
    runs = [write_run(tmp_path / name, [3.0]) for name in "ab"]
    found = [
        Landscape(run.name, {**FACTS, "run": str(run)}, values, values, (0.1, 0.2))
        for run, values in zip(runs, np.random.default_rng(0).random((2, 3, 3)), strict=True)
    ]
    (tmp_path / "landscape").mkdir()
    write_landscape(found, PLAN, StudyFolder(tmp_path / "landscape"))
    (side_by_side,) = landscapes([read_run(run) for run in runs]).values()
    assert [one.name for one in side_by_side] == ["a", "b"]


def test_a_garbled_analysis_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [3.0])
    write_solutions(run)
    (run / "analysis" / "landscape" / "run.csv").write_text("loss,error\n1,2\n")
    with pytest.raises(UserError, match=r"landscape\.json: not as `hpcddl analyze` writes it"):
        landscapes([read_run(run)])


def test_nothing_of_an_earlier_report_stays(tmp_path: Path) -> None:
    """Pictures and tables that the new one has not; what else lies in the folder stays."""
    runs = [read_run(write_run(tmp_path / "run", [3.0, 2.0]))]
    out = tmp_path / "report"
    write_page(runs, parse_target("loss=2.5"), out, 0.0)
    (out / "figures" / "earlier.pdf").write_bytes(b"")
    (out / "notes.txt").write_text("mine")
    write_page(runs, None, out, 0.0)
    assert not (out / "target.csv").exists()
    assert not (out / "figures" / "earlier.pdf").exists()
    assert list((out / "figures").glob("*.pdf"))
    assert (out / "notes.txt").read_text() == "mine"
