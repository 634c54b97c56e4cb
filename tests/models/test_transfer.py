import torch

from rlhf_online.models.transfer import onto


def test_on_a_cpu_nothing_is_copied():
    """What a GPU does is in `test_gpu`."""
    values = torch.ones(3)
    assert onto(values, "cpu") is values
