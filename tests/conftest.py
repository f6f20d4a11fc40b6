"""Shape and type checks are on for every test: jaxtyping's hook with beartype, before fanfold is first imported."""

from jaxtyping import install_import_hook

with install_import_hook("fanfold", "beartype.beartype"):
    import fanfold

import pytest
import torch
from hypothesis import settings

settings.register_profile("fanfold", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("fanfold")
assert fanfold.__version__


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1234)


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    """Small tensors: more threads cost more than they bring, and sums keep their order."""
    torch.set_num_threads(1)
