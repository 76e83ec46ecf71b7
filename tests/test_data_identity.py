"""A run knows its data set by the samples: the same set anywhere, and no other in silence."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from hpcddl.data.manifest import read_manifest
from hpcddl.run import checkpoint
from tests.conftest import Launch
from tests.synthetic import write_recipe, write_shards

OTHER = "these are not the samples that the run was trained on; fix: "


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, hpcddl: Launch) -> Path:
    """A folder with `shards`, another set of the same shape, `other`, and a run of two epochs."""
    folder = tmp_path_factory.mktemp("identity")
    write_shards(folder / "shards")
    write_shards(folder / "other", seed=1)
    recipe = write_recipe(
        folder / "r.yaml", folder / "shards", "ssgd", "checkpoint: {keep_last: 3}"
    )
    done = hpcddl("train", recipe, "epochs=2", "--out", folder / "run", ranks=1)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, in which a test may move things."""
    shutil.copytree(trained, tmp_path / "copy")
    recipe = tmp_path / "copy" / "r.yaml"
    recipe.write_text(recipe.read_text().replace(str(trained), str(tmp_path / "copy")))
    config = tmp_path / "copy" / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(trained), str(tmp_path / "copy")))
    return tmp_path / "copy"


def replace_data(folder: Path) -> None:
    shutil.rmtree(folder / "shards")
    (folder / "other").rename(folder / "shards")


def go_on(hpcddl: Launch, folder: Path, *words: object, **options: object) -> str:
    """The error of a resumed run of three epochs; empty if it ends well."""
    words = ("train", folder / "r.yaml", *words, "--resume", "--out", folder / "run")
    done = hpcddl(*words, ranks=1, **options)
    assert done.returncode == (2 if done.stderr else 0), done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stderr)


def test_the_fingerprint_is_of_the_samples(tmp_path: Path) -> None:
    """Equal for equal samples, wherever they were packed; another for any other sample."""
    found = [
        read_manifest(write_shards(tmp_path / name, seed=seed, heldout=heldout)).fingerprint
        for name, seed, heldout in (("a", 0, 45), ("b", 0, 45), ("c", 1, 45), ("d", 0, 44))
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_config_and_checkpoints_keep_it(trained: Path) -> None:
    fingerprint = read_manifest(trained / "shards").fingerprint
    config = yaml.safe_load((trained / "run" / "config.yaml").read_text())
    assert config["data"]["fingerprint"] == fingerprint
    found = checkpoint.newest(trained / "run")
    assert found is not None
    assert found.data == fingerprint


def test_resume_refuses_other_samples_at_the_same_path(folder: Path, hpcddl: Launch) -> None:
    replace_data(folder)
    before = sorted(path.name for path in (folder / "run").rglob("*"))
    assert OTHER in go_on(hpcddl, folder)
    assert OTHER in go_on(hpcddl, folder, "data.fingerprint=any")
    assert sorted(path.name for path in (folder / "run").rglob("*")) == before


def test_resume_asks_the_checkpoint_too(folder: Path, hpcddl: Launch) -> None:
    """A config that was written anew, or edited, does not make other data the run's own."""
    replace_data(folder)
    config = folder / "run" / "config.yaml"
    values = yaml.safe_load(config.read_text())
    values["data"]["fingerprint"] = read_manifest(folder / "shards").fingerprint
    config.write_text(yaml.safe_dump(values))
    assert OTHER in go_on(hpcddl, folder)


@pytest.mark.parametrize("spelling", ["relative", "dots", "link", "moved"])
def test_resume_takes_the_same_set_elsewhere(folder: Path, hpcddl: Launch, spelling: str) -> None:
    (folder / "link").symlink_to("shards")
    if spelling == "moved":
        (folder / "shards").rename(folder / "moved")
    path = folder / {"relative": "shards", "dots": "run/../shards"}.get(spelling, spelling)
    shown = os.path.relpath(path) if spelling == "relative" else path
    words = ("--data", shown) if spelling == "moved" else (f"data.path={shown}",)
    assert go_on(hpcddl, folder, *words) == ""
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["epoch"] == 3


def test_a_run_that_has_ended_needs_no_data(folder: Path, hpcddl: Launch) -> None:
    shutil.rmtree(folder / "shards")
    assert go_on(hpcddl, folder, "epochs=2") == ""


def test_a_run_of_an_earlier_version_goes_on_in_the_same_folder(
    folder: Path, hpcddl: Launch
) -> None:
    """It has no fingerprint; another folder may hold anything."""
    config = folder / "run" / "config.yaml"
    values = yaml.safe_load(config.read_text())
    del values["data"]["fingerprint"]
    config.write_text(yaml.safe_dump(values))
    for one in checkpoint.folders(folder / "run"):
        manifest = json.loads((one / "manifest.json").read_text())
        del manifest["sha256"], manifest["log"]["data"]
        checkpoint.write_manifest(one, manifest)
    error = go_on(hpcddl, folder, f"data.path={folder / 'other'}")
    assert "kept no fingerprint of its data; must be the same folder" in error
    assert go_on(hpcddl, folder) == ""


def test_a_recipe_may_name_the_fingerprint(folder: Path, hpcddl: Launch) -> None:
    """As the config of a run does, which is a recipe too."""
    words = ("train", folder / "run" / "config.yaml", f"data.path={folder / 'other'}")
    refused = hpcddl(*words, "--out", folder / "new", ranks=1)
    assert refused.returncode == 2
    assert "; fix: data.fingerprint=any" in refused.stderr
    assert not (folder / "new" / "config.yaml").exists()
    taken = hpcddl(*words, "data.fingerprint=any", "--out", folder / "new", ranks=1)
    assert taken.returncode == 0, taken.stderr
    kept = yaml.safe_load((folder / "new" / "config.yaml").read_text())["data"]["fingerprint"]
    assert kept == read_manifest(folder / "other").fingerprint
    bad = hpcddl(*words, "data.fingerprint=7", "--out", folder / "bad", ranks=1)
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1
    assert "data.fingerprint" in bad.stderr


READERS = [
    ("evaluate", "RUN", "--json"),
    ("export", "RUN", "--out", "net.safetensors"),
    ("analyze", "curvature", "RUN", "--top", "1", "--samples", "8"),
    ("analyze", "landscape", "RUN", "--points", "3", "--samples", "8"),
    ("analyze", "interpolate", "RUN", "RUN", "--points", "2", "--samples", "8"),
]


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_readers_of_a_run_refuse_other_samples(
    folder: Path, command: Launch, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the run's path, or where --data leads; --other-data is the word for: I know."""
    monkeypatch.chdir(folder)
    own = [word.replace("RUN", "run") for word in words]
    replace_data(folder)
    refused = command(*own)
    assert refused.returncode == 2
    assert OTHER + "--data PATH of its own set, or --other-data" in refused.stderr
    taken = command(*own, "--other-data")
    assert taken.returncode == 0, taken.stderr


def test_evaluate_says_the_same_of_the_set_anywhere(
    folder: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = json.loads(command("evaluate", "run", "--json").stdout)
    (folder / "shards").rename(folder / "moved")
    after = json.loads(command("evaluate", "run", "--data", "moved", "--json").stdout)
    assert {**after, "data": None} == {**before, "data": None}
