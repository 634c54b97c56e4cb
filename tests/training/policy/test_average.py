"""The moving average of weights."""

import pytest
import torch
from torch import nn

from rlhf_online.errors import VersionCorrupt
from rlhf_online.training.policy.average import WeightAverage


def _moved(parameter: nn.Parameter, value: float) -> None:
    with torch.no_grad():
        parameter.fill_(value)


def test_it_begins_as_the_weights_and_follows_them_by_its_decay():
    weight = nn.Parameter(torch.ones(2))
    average = WeightAverage({"w": weight}, decay=0.75)
    _moved(weight, 5.0)
    assert average.state()["w"].tolist() == [1, 1]
    average.step()
    assert average.state()["w"].tolist() == [0.75 * 1 + 0.25 * 5] * 2
    with average.in_place():
        assert weight.tolist() == [2, 2]
    assert weight.tolist() == [5, 5] and average.state()["w"].tolist() == [2, 2]


def test_what_is_kept_of_it_is_a_copy_and_is_put_back():
    weight = nn.Parameter(torch.ones(1))
    average = WeightAverage({"w": weight}, decay=0.5)
    kept = average.state()
    _moved(weight, 3.0)
    average.step()
    assert kept["w"].tolist() == [1]
    average.load_state(kept)
    assert average.state()["w"].tolist() == [1]
    average.load_state({})
    assert average.state()["w"].tolist() == [3], "nothing is kept: it begins anew with the weights"


def test_another_models_average_is_refused():
    average = WeightAverage({"w": nn.Parameter(torch.ones(1))}, decay=0.5)
    for other in ({"v": torch.zeros(1)}, {"w": torch.zeros(1), "v": torch.zeros(1)}):
        with pytest.raises(VersionCorrupt):
            average.load_state(other)
    assert average.state()["w"].tolist() == [1]
