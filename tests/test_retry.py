from rlhf_online.retry import Backoff


def test_waits_double_up_to_the_longest_and_begin_again_after_a_success():
    backoff = Backoff(0.5, 3.0)
    assert [backoff.advance() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert [backoff.advance() for _ in range(2)] == [0.5, 1.0]


def test_an_outage_may_last_for_ever():
    backoff = Backoff(0.1, 2.0)
    assert [backoff.advance() for _ in range(5000)][-1] == 2.0
