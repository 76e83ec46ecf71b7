"""Recipes, bases and overrides; every packaged recipe is valid."""

from pathlib import Path

import pytest

from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice
from hpcddl.recipes import merge, names
from hpcddl.run.config import load_config, save_config


@pytest.mark.parametrize("name", names())
def test_packaged_recipes_are_valid_and_described(name: str) -> None:
    assert load_config(name).description


def test_a_saved_config_loads_as_itself(tmp_path: Path) -> None:
    """config.yaml of a run is a recipe, defaults written out."""
    config = load_config("mini.dpsgd", ["seed=9", "strategy.topology={name: ring, neighbours: 2}"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config


def test_overrides_reach_into_sections() -> None:
    config = load_config(
        "mini.dpsgd",
        ["strategy.topology=ring", "strategy.topology.neighbours=2", "schedule.rate=1e-3"],
    )
    assert config.strategy.options["topology"] == Choice("ring", {"neighbours": 2})
    assert config.schedule.options["rate"] == 1e-3


def test_another_choice_drops_the_options_of_the_first() -> None:
    """`strategy.name=ssgd` over a dpsgd recipe must not trip over dpsgd's topology."""
    for override in ("strategy.name=ssgd", "strategy=ssgd"):
        assert load_config("mini.dpsgd", [override]).strategy == Choice("ssgd", {"fusion_mib": 0})


def test_sections_merge_unless_the_name_changes() -> None:
    base = {"a": {"name": "x", "p": 1, "q": 2}, "b": 1}
    assert merge(base, {"a": {"p": 3}}) == {"a": {"name": "x", "p": 3, "q": 2}, "b": 1}
    assert merge(base, {"a": {"name": "y"}}) == {"a": {"name": "y"}, "b": 1}


def test_a_recipe_file_may_build_on_a_packaged_one(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: mini.ssgd\nepochs: 3\n")
    assert load_config(str(recipe)).epochs == 3
    assert load_config(str(recipe)).strategy.name == "ssgd"


SLOW = "emulate: {between: {latency_seconds: 0.5}}"


@pytest.mark.parametrize("section", ["network", "links"])
@pytest.mark.parametrize("override", ["network", "links"])
def test_links_have_an_old_name(section: str, override: str, tmp_path: Path) -> None:
    """`network:` of older recipes and overrides is `links:`, which is what is written."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"base: mini.ssgd\n{section}: {{{SLOW}}}\n")
    config = load_config(str(recipe), [f"{override}.emulate.round_delay_seconds=2"])
    assert config.links.emulate is not None
    assert config.links.emulate.between.latency_seconds == 0.5
    assert config.links.emulate.round_delay_seconds == 2
    assert "network" not in config.plain()
    assert load_config("mini.ssgd", [f"{override}={{{SLOW}}}"]).links == config.links.model_copy(
        update={"emulate": config.links.emulate.model_copy(update={"round_delay_seconds": 0.0})}
    )


def test_links_under_both_names_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"base: mini.ssgd\nnetwork: {{{SLOW}}}\nlinks: {{{SLOW}}}\n")
    line = "network must not be given beside links, whose old name it is; fix: write links for"
    for name, overrides, where in (
        (str(recipe), [], str(recipe)),
        ("mini.ssgd", ["links.emulate.node_size=1", "network.emulate.slow={0: 2}"], "overrides"),
    ):
        with pytest.raises(UserError) as caught:
            load_config(name, overrides)
        assert str(caught.value) == f"{where}: {line} network"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: mini.ssgd\nepohcs: 3\n", "nearest: 'epochs'"),
        ("epochs: 3\n", "missing"),
        ("- 1\n", "mapping"),
        ("a: [\n", "not YAML"),
        ("base: nothing\n", "must be a YAML file or one of"),
        ("base: mini.ssgd\nmodel: {name: bilstm, layers: 0}\n", "model.layers=0"),
        ("base: mini.ssgd\nclip_norm: 0\n", "clip_norm=0: "),
        ("base: mini.ssgd\naccumulate: 0\n", "accumulate=0: "),
        ("base: mini.ssgd\nmodel: transformer\n", "'transformer' is not one of bilstm"),
        ("base: mini.ssgd\ncheckpoint: {every_epoch: 1}\n", "nearest: 'every_epochs'"),
    ],
)
def test_a_bad_recipe_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(str(recipe))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
