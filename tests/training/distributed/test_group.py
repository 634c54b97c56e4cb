"""Who trains together: a process on its own joins nobody; of several, one that does not come is named by all others."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from rlhf_online.errors import ConfigError, RanksFailed
from rlhf_online.training import distributed
from rlhf_online.training.distributed import group
from tests.support import ranks

CPU = torch.device("cpu")
WITHIN_S = 5.0


def rank() -> int:
    return int(os.environ["RANK"])


@pytest.mark.parametrize("size", [None, "1"])
def test_a_process_on_its_own_joins_nobody(size: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    with distributed.process_group(CPU) as device:
        assert device == CPU and distributed.alone() and distributed.is_main_process()
        distributed.agree("everything", pytest.fail)
        distributed.order("nobody hears it")
        assert distributed.own_device(torch.device("cuda")) == torch.device("cuda")


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert distributed.own_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert distributed.own_device(CPU) == CPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"torchrun started 4 processes \(--nproc-per-node\) for 2 GPUs"):
        distributed.own_device(torch.device("cuda"))


def test_gpus_exchange_gradients_by_nccl_and_all_else_goes_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU this much can be told: which groups are made, with which patience."""
    made: list[tuple[str, float]] = []
    torchs = SimpleNamespace(
        init_process_group=lambda backend, timeout, **_: made.append((backend, timeout.total_seconds())),
        new_group=lambda backend, timeout: made.append((backend, timeout.total_seconds())),
    )
    monkeypatch.setattr(group, "distributed", torchs)
    monkeypatch.setattr(group, "rendezvous", lambda url, timeout: iter([("store", 1, 2)]))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append((str(device), 0)))
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    state = group._Group()  # noqa: SLF001
    monkeypatch.setattr(group, "_group", state)
    group._join(torch.device("cuda", 1), 9.0)  # noqa: SLF001
    idle = group.IDLE.total_seconds()
    assert made == [("cuda:1", 0), ("gloo", 9.0), ("gloo", idle), ("nccl", 9.0)]


def meet(fault: str) -> None:
    """Two exchanges, before the second of which rank 1 has the fault."""
    with distributed.process_group(CPU, WITHIN_S):
        distributed.agree("the first", lambda: "same")
        if rank() == 1:
            match fault:
                case "is killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "stands still":
                    os.kill(os.getpid(), signal.SIGSTOP)
                case "fails":
                    raise ValueError("of its own")
        distributed.agree("the second", lambda: "other" if fault == "differs" and rank() == 1 else "same")


@pytest.mark.parametrize(
    ("fault", "own", "said"),
    [
        ("is killed", signal.SIGKILL, r"^the second, shared by 3 ranks: rank 1 \(.*, process \d+\) ended\. Nothing of"),
        (
            "fails",
            ValueError,
            r"^the second, shared by 3 ranks: rank 1 \(.*\) (ended|failed, and says why)\. Nothing of",
        ),
        ("stands still", signal.SIGKILL, r"^the second, shared by 3 ranks: rank 1 \(.*\) did not come within .* s\. "),
        (
            "differs",
            RanksFailed,
            r"^the second is another one for rank 1 \(.*, process \d+\) than for rank 0: have one",
        ),
    ],
)
def test_the_others_name_who_does_not_come_or_differs(fault: str, own: object, said: str) -> None:
    first, wrong, last = ranks.run(3, meet, fault)
    assert wrong is own or (isinstance(own, type) and isinstance(wrong, own))
    for other in (first, last):
        with pytest.raises(RanksFailed, match=said):
            raise other


def give_orders(fault: str) -> list[distributed.Order] | None:
    """Rank 0 gives two orders, and then says no more, or ends."""
    tensors = {"half": torch.arange(6).reshape(2, 3).to(torch.bfloat16), "scalar": torch.tensor(3.5)}
    with distributed.process_group(CPU, WITHIN_S):
        if rank() == 0:
            distributed.order("do", lambda: {"nan": float("nan"), "third": 1 / 3, "name": "fig 🍐"}, tensors)
            if fault == "it ends":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(2 * WITHIN_S)  # nobody loses patience
            distributed.order("stop")
            return None
        return [distributed.next_order(), distributed.next_order()]


def test_orders_are_heard_as_they_were_given_however_long_they_take_to_come() -> None:
    for heard in ranks.run(3, give_orders, "")[1:]:
        (order, stop) = heard
        assert order.name == "do" and repr(order.values) == repr(
            {"nan": float("nan"), "third": 1 / 3, "name": "fig 🍐"}
        )
        assert order.tensors["half"].dtype == torch.bfloat16 and order.tensors["scalar"].item() == 3.5
        assert order.tensors["half"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert (stop.name, stop.values, stop.tensors) == ("stop", {}, {})


def test_who_waits_for_orders_ends_with_rank_0() -> None:
    leader, *others = ranks.run(2, give_orders, "it ends")
    assert leader is signal.SIGKILL
    with pytest.raises(RanksFailed, match=r"waiting for orders, shared by 2 ranks: rank 0 \(.*\) ended"):
        raise others[0]
