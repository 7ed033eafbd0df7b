import pytest

from tests.runs import train_tiny_run


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """config.yml of a small run of semantic-flow-tiny."""
    return train_tiny_run(tmp_path_factory.mktemp("trained_run"))
