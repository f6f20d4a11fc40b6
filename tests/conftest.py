"""Shape and type checks are on for every test: jaxtyping's hook with beartype, before fanfold is first imported."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of every worker and what it starts: small tensors, and sums keep their order

from jaxtyping import install_import_hook

with install_import_hook("fanfold", "beartype.beartype"):
    import fanfold

import pytest
import torch
from hypothesis import settings

settings.register_profile("fanfold", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("fanfold")
assert fanfold.__version__
torch.set_num_threads(1)

BROWSED = ("test_documents.py", "test_figure.py", "test_lab_page.py")  # modules whose one visit serves all their tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that visit a browser come first: in the middle, where two workers share a module, both would visit."""
    items.sort(key=lambda item: item.path.name not in BROWSED)


@pytest.fixture(autouse=True, scope="session")
def state_home(tmp_path_factory):
    """Keys of this machine that tests make go into a folder of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1234)
