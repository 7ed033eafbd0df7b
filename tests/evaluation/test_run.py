import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.evaluation.run import evaluate_run


def test_a_missing_config_is_one_sentence(tmp_path):
    with pytest.raises(SemfieldError, match=r"give the config\.yml of a trained run"):
        evaluate_run(tmp_path / "config.yml")
