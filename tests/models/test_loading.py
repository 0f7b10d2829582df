import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from relay_models import loading
from relay_models.loading import WeightsError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    save_file(
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(5, dtype=np.uint8)}, folder / "w.safetensors"
    )
    (folder / "config.json").write_text("{}")
    loading.add_to_manifest("toy", loading.describe("toy", folder, kind="brain", summary="a toy"), tmp_path)
    return tmp_path


def test_sound_weights_are_found(root: Path) -> None:
    assert loading.locate("toy", root) == root / "toy"
    model = loading.read_manifest(root)["toy"]
    assert (model.kind, model.summary, model.licence) == ("brain", "a toy", "Apache-2.0")
    assert model.size_bytes == sum(path.stat().st_size for path in (root / "toy").iterdir())


def test_an_entry_leaves_the_others(root: Path) -> None:
    loading.add_to_manifest("other", loading.describe("other", root / "toy", kind="ears", summary="x"), root)
    assert set(loading.read_manifest(root)) == {"toy", "other"}


def test_one_flipped_bit_is_noticed(root: Path) -> None:
    loading.locate("toy", root)
    path = root / "toy" / "w.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"toy/w\.safetensors is damaged"):
        loading.locate("toy", root)


def test_a_missing_file_is_noticed(root: Path) -> None:
    (root / "toy" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"toy/config\.json is missing"):
        loading.locate("toy", root)


def test_an_unknown_model_is_told_what_there_is(root: Path) -> None:
    with pytest.raises(WeightsError, match="there are: toy"):
        loading.locate("nothing", root)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"models": {"x": {}}}', '{"models": {"x": 3}}'])
def test_a_damaged_manifest_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / loading.MANIFEST).write_text(content)
    with pytest.raises(WeightsError, match="damaged"):
        loading.read_manifest(tmp_path)


def test_a_missing_manifest_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing"):
        loading.read_manifest(tmp_path)


def test_places_are_where_the_bytes_are(root: Path) -> None:
    path = root / "toy" / "w.safetensors"
    places = loading.tensor_places(path)
    data = path.read_bytes()
    for name, dtype, expected in (
        ("a", "F32", np.arange(6, dtype=np.float32)),
        ("b", "U8", np.arange(5, dtype=np.uint8)),
    ):
        place = places[name]
        assert place.dtype == dtype
        found = np.frombuffer(data[place.offset : place.offset + place.length], dtype=expected.dtype)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("content", [b"", b"\x05", b"\x05" + bytes(7) + b"nojs!", bytes(8)])
def test_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.safetensors cannot be read"):
        loading.tensor_places(tmp_path / "x.safetensors")


@pytest.mark.parametrize("content", [None, "", "[1]"])
def test_a_bad_config_is_reported(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        loading.read_config(tmp_path)


def test_what_ships_is_sound() -> None:
    for name, model in loading.read_manifest().items():
        folder = loading.locate(name)
        assert {path.name for path in folder.iterdir()} == {file.name for file in model.files}
        assert json.loads((folder / "config.json").read_text())
