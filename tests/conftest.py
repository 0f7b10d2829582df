from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is; by default one of more than 200 ms is a failure.
settings.register_profile("relay", deadline=None)
settings.load_profile("relay")


@pytest.fixture(scope="session")
def exported_ears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small recogniser as it ships."""
    pytest.importorskip("onnxscript")
    from tests.engine.ears_models import write_exported

    return write_exported(tmp_path_factory.mktemp("models") / "small")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first makes the export, which a busy machine takes minutes for."""
    for item in items:
        if "exported_ears" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(600))
