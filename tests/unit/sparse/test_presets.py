"""The published profiles that ship: whole, with their source, chosen by what is known of a run, and used."""

from __future__ import annotations

import re

import pytest
import torch
from synthetic_host import SyntheticHost, same

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.ranks import rank_correlation
from vdit_core.selection import LayerMask
from vdit_core.sparse import presets
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.density_profile import DensityProfile
from vdit_core.sparse.methods import BY_STRENGTH, METHODS
from vdit_core.sparse.profile import ProfileError
from vdit_core.sparse.sparse_attention import SparseAttention

SMALL, LARGE = ModelSignature(30, 12, 128), ModelSignature(40, 40, 128)
T2V, I2V, I2V_22 = "wan t2v 16 -> 16", "wan i2v 36 -> 16", "wan t2v 36 -> 16"


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_is_whole_small_and_says_where_it_is_from(name):
    profile = presets.load(name)
    assert profile.name == name
    assert profile.model == (SMALL if "1.3B" in name else LARGE)
    assert profile.mass == 0.95
    assert profile.measured["license"] == "Apache-2.0"
    assert "sparsevideo 0.1.0" in str(profile.measured["source"])
    assert 0.1 < profile.table().mean() < 0.3
    assert (profile.table().round(4) == profile.table()).all()
    assert profile.table().max() > 0.9, "some heads look at nearly everything"
    path = presets.path_of(name)
    assert path.stat().st_size < 20_000
    assert path.read_text() == profile.to_json()


def test_the_notice_names_every_file_and_its_source():
    notice = presets.path_of(presets.NAMES[0]).with_name("NOTICE").read_text()
    assert "Copyright 2026 Jiayi Luo, Beihang University & Zhongguanchun Academy" in notice
    for name in presets.NAMES:
        assert presets.path_of(name).name in notice
        assert str(presets.load(name).measured["file"]).rpartition("/")[2] in notice
        first, last = re.match(r"(\d+)-(\d+) of", str(presets.load(name).measured["steps"])).groups()
        if "noise" in name:
            assert f"{presets.path_of(name).name} (steps {first} to {last})" in notice


def test_models_of_one_shape_share_most_of_their_pattern():
    """Why a shape has a default."""
    one = presets.load("Wan2.1 14B T2V").table()
    others = [presets.load(name).table() for name in presets.NAMES if "14B" in name]
    assert all(rank_correlation(one, other) > 0.94 for other in others)


def test_an_expert_is_nearer_to_the_same_expert_of_another_model():
    """The split of Wan2.2's tables is where the pattern says."""
    t2v, i2v = ({part: presets.load(f"Wan2.2 A14B {kind} {part} noise").table() for part in ("high", "low")}
                for kind in ("T2V", "I2V"))  # fmt: skip
    assert rank_correlation(t2v["high"], i2v["high"]) > rank_correlation(t2v["high"], t2v["low"])
    assert rank_correlation(t2v["low"], i2v["low"]) > rank_correlation(t2v["low"], t2v["high"])


@pytest.mark.parametrize(
    ("model", "kind", "levels", "name"),
    [
        (SMALL, "", (), "Wan2.1 1.3B T2V"),
        (SMALL, T2V, (1.0, 0.5), "Wan2.1 1.3B T2V"),
        (LARGE, "", (), "Wan2.1 14B T2V"),
        (LARGE, T2V, (1.0, 0.5), "Wan2.1 14B T2V"),
        (LARGE, "wan t2v animate 36 -> 16", (), "Wan2.1 14B T2V"),
        (LARGE, I2V, (1.0, 0.5), "Wan2.1 14B I2V"),
        (LARGE, I2V_22, (1.0, 0.95, 0.91), "Wan2.2 A14B I2V high noise"),
        (LARGE, I2V_22, (0.89, 0.5, 0.2), "Wan2.2 A14B I2V low noise"),
        (LARGE, I2V_22, (1.0, 0.9, 0.2), "Wan2.2 A14B I2V low noise"),
        (LARGE, I2V_22, (), "Wan2.2 A14B I2V low noise"),
        (LARGE, "cosmos 16 -> 16", (), None),
        (ModelSignature(9, 2, 64), T2V, (), None),
        (ModelSignature(40, 40, 64), T2V, (), None),
        (ModelSignature(40, 40, 128, (("main", 32), ("vace", 8))), T2V, (), None),
    ],
)
def test_the_preset_that_fits_is_found(model, kind, levels, name):
    found = presets.matching(model, kind, levels)
    assert (None if found is None else found.name) == name


@pytest.mark.parametrize("method", METHODS)
def test_auto_serves_methods_that_choose_the_strongest(method):
    assert (presets.chosen("auto", method, SMALL) is not None) == (method in BY_STRENGTH)
    assert presets.chosen("none", method, SMALL) is None


def test_a_name_that_does_not_fit_is_refused():
    with pytest.raises(
        ProfileError, match=r"Wan2\.1 14B T2V is of a model of 40 layers x 40 heads x 128; this one has 30"
    ):
        presets.chosen("Wan2.1 14B T2V", "block top-k", SMALL)
    with pytest.raises(ProfileError, match="nothing of the method 'window'"):
        presets.chosen("Wan2.1 14B T2V", "window", LARGE)
    with pytest.raises(ProfileError, match=r"no published profile 'Wan3'; those that are: Wan2\.1 1\.3B T2V, "):
        presets.load("Wan3")
    with pytest.raises(ValueError, match=r"no preset 'Wan3'; the presets are auto, none, Wan2\.1 1\.3B T2V"):
        SparseConfig(preset="Wan3")


def everywhere(density: float, **changes) -> SparseConfig:
    settings = {"method": "exact top-k", "dense_first": 0.0, "minimum_tokens": 0, "if_slower": "sparse"}
    return SparseConfig(density=density, **settings | changes)


def wan(**changes) -> SyntheticHost:
    """Of the shape of Wan2.1 1.3B, on a tiny grid."""
    shape = {"layers": 30, "heads": 12, "head_dim": 128, "grid": TokenGrid(1, 4, 4), "sigmas": (1.0,)}
    return SyntheticHost(**shape | {"branches": ("cond",)} | changes)


def test_a_preset_spends_the_density_and_says_so():
    host, config = wan(), everywhere(0.25, preset="auto")
    found = config.resolve(host.describe())
    expected = presets.load("Wan2.1 1.3B T2V").densities(0.25)
    assert found.density.numpy() == pytest.approx(expected, abs=1e-6)
    assert float(found.density.mean()) == pytest.approx(0.25, abs=1e-6)
    assert float(found.density.min()) == pytest.approx(0.125, abs=2e-3), "half is spent alike"
    assert (found.temperature == 1).all()
    editor = SparseAttention(config)
    host.run(1, editor)
    assert str(editor.report).endswith(", spent by the published profile of Wan2.1 1.3B T2V")
    named = SparseAttention(everywhere(0.25, preset="Wan2.1 1.3B T2V"))
    assert same(host.run(1, named), host.run(1, SparseAttention(config)))
    assert not same(host.run(1, named), host.run(1, SparseAttention(everywhere(0.25))))


def test_dense_layers_and_the_temperature_go_with_it():
    config = everywhere(0.5, preset="auto", dense_layers=LayerMask("3, 4:0.5"), temperature=0.8)
    found, alone = config.resolve(wan().describe()), presets.load("Wan2.1 1.3B T2V").densities(0.5)
    assert (found.density[3] == 1).all()
    assert found.density[4].numpy() == pytest.approx((1 + alone[4]) / 2, abs=1e-6)
    part = found.density < 1
    assert (~part[0]).any(), "heads that get all"
    assert found.temperature.numpy() == pytest.approx(part.numpy() * 0.8 + ~part.numpy())


def test_keeping_all_is_the_stock_result_bit_for_bit():
    host = wan()
    editor = SparseAttention(everywhere(1.0, preset="auto"))
    assert same(host.run(1, editor), host.run(1))
    assert "spent" not in str(editor.report)


def test_where_none_fits_auto_spends_alike_without_a_word():
    host = SyntheticHost()
    auto, alike = SparseAttention(everywhere(0.5, preset="auto")), SparseAttention(everywhere(0.5))
    assert same(host.run(1, auto), host.run(1, alike))
    assert "spent" not in str(auto.report)
    with pytest.raises(ProfileError, match="this one has 3 layers x 2 heads x 8"):
        host.run(1, SparseAttention(everywhere(0.5, preset="Wan2.1 1.3B T2V")))


def test_a_profile_of_ones_own_is_used_instead():
    own = DensityProfile(ModelSignature(3, 2, 8), ((0.1, 0.3),) * 3, name="mine")
    editor = SparseAttention(everywhere(0.2, profile=own, preset="Wan2.1 14B T2V"))
    SyntheticHost().run(1, editor)
    assert str(editor.report).endswith(", spent by the profile of mine")
    density = everywhere(0.2, profile=own).resolve(SyntheticHost().describe()).density
    assert torch.allclose(density, torch.tensor([[0.15, 0.25]] * 3))


def test_densities_of_a_batch_take_its_place():
    """Measuring says what each video gets."""
    editor = SparseAttention(everywhere(0.2, preset="auto"), [torch.full((30, 12), 0.5)])
    wan().run(1, editor)
    assert "spent" not in str(editor.report)
    assert editor.report.density == pytest.approx(0.5)
