"""Files of sparsity profiles, which are JSON: cut, of another kind, or not true."""

from __future__ import annotations

import json

import pytest
from faults.broken_files import DEEP, PROFILE, refuses

from vdit_core.sparse.profile import ProfileError, SparseProfile

TEXT = PROFILE.to_json()


@pytest.mark.parametrize("share", [n / 32 for n in range(32)])
def test_a_profile_that_is_cut_is_refused(tmp_path, share):
    (tmp_path / "a.json").write_text(TEXT[: int(len(TEXT) * share)])
    with pytest.raises(ProfileError, match=r"a\.json is not a whole sparsity profile: .*\. Measure it again\."):
        SparseProfile.load(tmp_path / "a.json")


def set_to(**changes):
    return json.dumps(json.loads(TEXT) | changes)


PROFILES = [
    ("empty", "", "JSONDecodeError"),
    ("zeros", "\0" * 400, "JSONDecodeError"),
    ("a list", "[]", "JSON of another kind"),
    ("null", "null", "another kind"),
    ("another kind", set_to(format="x"), "another kind"),
    ("later version", set_to(version=3), "version 3; this pack reads version 2"),
    ("nested deeply", DEEP, "RecursionError"),
    ("a table nested deeply", TEXT.replace('"errors": [', '"errors": [' + "[" * 5000 + "]" * 5000 + ","), ""),
    ("text behind it", TEXT + "x", "Extra data"),
    ("two of them", TEXT * 2, "Extra data"),
    ("a byte order mark", "\ufeff" + TEXT, "BOM"),
    ("a number of 5000 digits", TEXT.replace('"density": 0.5', '"density": ' + "1" * 5000), "ValueError"),
    ("a number of 400 digits", TEXT.replace('"density": 0.5', '"density": 1' + "0" * 400), "OverflowError"),
    ("1e400", TEXT.replace('"density": 0.5', '"density": 1e400'), "inf is not a number"),
    ("NaN", set_to(density=float("nan")), "nan is not a number"),
    ("keep as text", set_to(density="0.5"), "'0.5' is not a number"),
    ("density is true", set_to(density=True), "True is not a number"),
    (
        "keep twice, the last one counts",
        TEXT.replace('"density": 0.5', '"density": 0.5, "density": 7'),
        "density is 7.0",
    ),
    ("keep above 1", set_to(density=1.5), "density is 1.5, and must be from 0 to 1"),
    ("negative keep", set_to(density=-0.1), "density is -0.1"),
    ("no such method", set_to(method="x"), "There is no method 'x'"),
    ("half a character as method", set_to(method="\ud800"), "There is no method"),
    ("a method that needs none", set_to(method="block top-p"), "adapts to each head by itself"),
    ("levels that fall", set_to(levels=[0.5, 0.25]), "must rise and lie between 0 and 1"),
    ("no levels", set_to(levels=[]), "must rise"),
    ("a level of 1", set_to(levels=[0.5, 1.0]), "must rise and lie between 0 and 1"),
    ("a level too many", set_to(levels=[0.1, 0.25, 0.5]), "errors must hold 2 x 2 x 3 numbers, 0 or more"),
    ("a layer too few", set_to(errors=json.loads(TEXT)["errors"][:1]), "errors must hold 2 x 2 x 2 numbers"),
    ("a ragged table", set_to(errors=[[[1, 2], [1]], [[1, 2], [1, 2]]]), "errors must hold"),
    ("a negative error", set_to(errors=[[[-1, 0]] * 2] * 2), "errors must hold 2 x 2 x 2 numbers, 0 or more"),
    ("an error as text", set_to(errors=[[["a", "b"]] * 2] * 2), "'a' is not a number"),
    ("errors are a number", set_to(errors=1), "TypeError"),
    ("no temperature", set_to(temperature=[[[0, 0]] * 2] * 2), "temperature must hold 2 x 2 x 2 numbers, 0.01 or more"),
    ("dense layers of version 1", set_to(version=1, keep=0.5, dense_layers=[1]), "it names dense_layers, which"),
    ("a huge model", set_to(model={"layers": 10**9, "heads": 2, "head_dim": 8}), "errors must hold 1000000000 x 2 x 2"),
    ("a model without heads", set_to(model={"layers": 2, "head_dim": 8}), "TypeError"),
    ("no model", set_to(model=None), "AttributeError"),
    ("measured on a list", set_to(measured=[]), "AttributeError"),
    ("measured on something nested", set_to(measured={"a": {}}), "is not text or a number"),
]


@pytest.mark.parametrize(("text", "said"), [pytest.param(*case, id=name) for name, *case in PROFILES])
def test_a_profile_that_is_not_true_is_refused(tmp_path, text, said):
    refuses(SparseProfile, tmp_path / "a.json", text, said)


def test_a_profile_of_extreme_numbers_gives_densities():
    extreme = json.loads(TEXT) | {
        "errors": [[[1e300, 0.0], [5e-324, 1e300]]] * 2,
        "temperature": [[[1e300, 0.01]] * 2] * 2,
    }
    profile = SparseProfile.from_json(json.dumps(extreme))
    densities = profile.densities()
    assert ((densities >= 0) & (densities <= 1)).all()
    assert abs(densities.mean() - 0.5) < 1e-6


def test_profiles_that_are_not_in_utf8_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(ProfileError, match="is not a whole sparsity profile"):
        SparseProfile.load(tmp_path / "a.json")
