"""Each format's rows, written here in its shape, and what is understood of them."""

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from rlhf_online.data.formats import FORMATS
from rlhf_online.data.formats.hh_rlhf import read as read_hh
from rlhf_online.data.rows import BETTER_FIRST, TIED, Message, Row
from rlhf_online.errors import RowRefused

QUESTION = Message(role="user", content="Is fig a fruit?")


def read(name: str, values: dict[str, Any]) -> Row:
    [row] = FORMATS[name].read(values)
    assert isinstance(row, Row)
    return row


def refusal(name: str, values: dict[str, Any]) -> str:
    """The reason why the row is refused."""
    with pytest.raises(RowRefused) as refused:
        list(FORMATS[name].read(values))
    return refused.value.reason


# HH-RLHF

HEAD = "\n\nHuman: Is fig a fruit?\n\nAssistant: Yes.\n\nHuman: And zinc?"


def hh(chosen: str, rejected: str, head: str = HEAD) -> Row:
    return read("hh-rlhf", {"chosen": head + chosen, "rejected": head + rejected})


def test_the_common_turns_are_the_prompt_and_the_rest_the_answers():
    row = hh("\n\nAssistant: A metal.", "\n\nAssistant: A tool.")
    assert [(m.role, m.content) for m in row.messages] == [
        ("user", "Is fig a fruit?"), ("assistant", "Yes."), ("user", "And zinc?"),
    ]  # fmt: skip
    assert row.answers == ("A metal.", "A tool.")
    assert [j.tiers for j in row.judgements] == [BETTER_FIRST] and row.notes == ()


def test_an_answer_that_holds_a_mark_is_kept_whole_where_the_last_mark_would_cut_it():
    row = hh("\n\nAssistant: A metal.\n\nAssistant: Or so.", "\n\nAssistant: A tool.")
    assert row.answers == ("A metal.\n\nAssistant: Or so.", "A tool.")
    assert len(row.messages) == 3 and row.notes == ("turns_differ",)


def test_a_side_that_only_goes_on_after_the_other_one_keeps_what_both_say():
    row = hh("\n\nAssistant: A metal.", "\n\nAssistant: A metal.\n\nAssistant: Or so.")
    assert row.answers == ("A metal.", "A metal.\n\nAssistant: Or so.")


def test_a_doubled_turn_of_both_sides_is_prompt():
    row = hh("\n\nAssistant: A metal.\n\nAssistant: Yes.", "\n\nAssistant: A metal.\n\nAssistant: No.")
    assert row.answers == ("Yes.", "No.")
    assert row.messages[-1] == Message(role="assistant", content="A metal.") and row.notes == ("doubled_turn",)


@pytest.mark.parametrize(("chosen", "note"), [("", "empty_chosen"), ("A tool.", "")])
def test_the_preferred_answer_may_be_empty(chosen: str, note: str):
    row = hh(f"\n\nAssistant: {chosen}", "\n\nAssistant: A metal.")
    assert row.answers == (chosen, "A metal.") and row.notes == ((note,) if note else ())


def test_marks_count_behind_a_blank_line_and_with_a_colon_alone():
    said = "Human: x\nAssistant: y\n\nHuman beings\n\nAssistants\n\n z"
    row = hh(f"\n\nAssistant: {said}", "\n\nAssistant: no")
    assert row.answers == (said, "no")


def test_one_space_behind_a_mark_belongs_to_it_and_all_other_white_space_is_kept():
    row = hh("\n\nAssistant:  two\n", "\n\nAssistant:none", head="\n\nHuman: a\n\n b ")
    assert row.answers == (" two\n", "none") and row.messages[0].content == "a\n\n b "


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (HEAD + "\n\nAssistant: yes", HEAD + "\n\nAssistant: yes", "equal"),
        (HEAD + "\n\nAssistant: yes", HEAD + "\n\nAssistant:  yes ", "equal"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: other\n\nAssistant: c", "diverges"),
        (HEAD + "\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", HEAD + "\n\nAssistant: e", "diverges"),
        ("\n\nHuman: \n\nAssistant: b", "\n\nHuman: \n\nAssistant: c", "empty"),
        ("\n\nAssistant: b", "\n\nAssistant: c", "empty"),
        ("once " + HEAD + "\n\nAssistant: b", HEAD + "\n\nAssistant: c", "shape"),
        ("", HEAD, "shape"),
    ],
)  # fmt: skip
def test_what_is_no_pair_of_answers_to_one_prompt_is_refused(chosen: str, rejected: str, reason: str):
    assert refusal("hh-rlhf", {"chosen": chosen, "rejected": rejected}) == reason


def test_the_short_way_through_a_row_and_the_long_one_say_the_same(monkeypatch: pytest.MonkeyPatch):
    from tests.support import hh_rlhf

    rows = hh_rlhf.rows(200)
    short = [next(read_hh(row)) for row in rows]
    monkeypatch.setattr("rlhf_online.data.formats.hh_rlhf._ends", lambda *_: False)
    assert [next(read_hh(row)) for row in rows] == short


# The others

PAIR = {"chosen": "Yes.", "rejected": "No."}
SAID = {name: [{"role": "assistant", "content": text}] for name, text in PAIR.items()}
ASKED = [{"role": "user", "content": "Is fig a fruit?"}]
SHP = {
    "post_id": "p1", "domain": "askcooks_train", "upvote_ratio": 0.98, "history": "Is fig a fruit?",
    "c_root_id_A": "a", "c_root_id_B": "b", "created_at_utc_A": 1600000000, "created_at_utc_B": 1600000100,
    "score_A": 5, "score_B": 9, "human_ref_A": "Yes.", "human_ref_B": "No.", "labels": 0,
    "seconds_difference": 100.0, "score_ratio": 1.8,
}  # fmt: skip
ULTRA = {
    "source": "evol", "instruction": "Is fig a fruit?", "models": ["a", "b", "c"], "correct_answers": ["None"],
    "completions": [
        {"model": "a", "response": "No.", "fine-grained_score": 2.0, "overall_score": 85.0},
        {"model": "b", "response": "Yes.", "fine-grained_score": 4.5, "overall_score": 7.0},
        {"model": "c", "response": "It is.", "fine-grained_score": 4.5, "overall_score": 8.0},
        {"model": "d", "response": "Lost", "overall_score": "N/A"},
    ],
}  # fmt: skip
TREE = {
    "message_tree_id": "t1", "tree_state": "ready_for_export",
    "prompt": {
        "message_id": "t1", "role": "prompter", "text": "Is fig a fruit?", "lang": "en", "replies": [
            {"message_id": "r1", "role": "assistant", "text": "No.", "rank": 1, "replies": []},
            {"message_id": "r2", "role": "assistant", "text": "Yes.", "rank": 0, "replies": [
                {"message_id": "q2", "role": "prompter", "text": "And zinc?", "replies": [
                    {"message_id": "r3", "role": "assistant", "text": "A metal.", "rank": 0, "replies": []},
                    {"message_id": "r4", "role": "assistant", "text": "A tool.", "rank": 2, "replies": []},
                    {"message_id": "r5", "role": "assistant", "text": "Spam", "rank": 1, "deleted": True},
                ]},
            ]},
        ],
    },
}  # fmt: skip
WEBGPT = {
    "question": {"dataset": "eli5", "id": "w1", "full_text": "Is fig a fruit?"},
    "quotes_0": {"title": [], "extract": []}, "answer_0": "No.", "tokens_0": {}, "score_0": -0.75,
    "quotes_1": {"title": [], "extract": []}, "answer_1": "Yes.", "tokens_1": {}, "score_1": 0.75,
}  # fmt: skip
SUMMARIES = {
    "info": {"id": "s1", "post": "Figs grow. ", "title": "Figs", "subreddit": "garden", "site": None, "article": None},
    "summaries": [
        {"text": " Growing figs", "policy": "sup4", "note": ""}, {"text": " Nothing", "policy": "ref", "note": None},
    ],
    "choice": 0, "worker": "w7", "batch": "b1", "split": "train", "extra": {"confidence": None},
}  # fmt: skip


def test_shp_prefers_a_where_its_label_is_1_and_b_where_it_is_0():
    row = read("shp", SHP)
    assert row.messages == (QUESTION,) and row.answers == ("Yes.", "No.")
    assert row.judgements[0].tiers == ((1,), (0,)) and read("shp", SHP | {"labels": 1}).judgements[0].tiers == (
        (0,),
        (1,),
    )
    assert row.id == "p1/a/b" and row.at_ms == 1600000100000 and row.other["score_B"] == 9
    assert refusal("shp", SHP | {"labels": 2}) == "no_vote"


def test_ultrafeedback_ranks_by_the_fine_grained_score_with_ties_and_leaves_out_what_has_none():
    row = read("ultrafeedback", ULTRA)
    assert row.answers == ("No.", "Yes.", "It is.") and row.judgements[0].tiers == ((1, 2), (0,))
    assert row.judgements[0].source == "ai" and row.other["models"] == ["a", "b", "c"]
    assert refusal("ultrafeedback", ULTRA | {"completions": ULTRA["completions"][:1]}) == "single"


def test_ultrafeedback_binarised_holds_the_prompt_in_both_sides_and_may_tie():
    values = {
        "prompt": "Is fig a fruit?", "prompt_id": "h1", "messages": [], "score_chosen": 8.0, "score_rejected": 6.5,
        **{name: [*ASKED, *side] for name, side in SAID.items()},
    }  # fmt: skip
    row = read("ultrafeedback-binarized", values)
    assert row.messages == (QUESTION,) and row.answers == ("Yes.", "No.") and row.id == "h1"
    assert row.judgements[0].tiers == BETTER_FIRST
    assert read("ultrafeedback-binarized", values | {"score_rejected": 8.0}).judgements[0].tiers == TIED


def test_oasst_gives_a_ranking_for_each_message_whose_replies_are_ranked():
    first, second = FORMATS["oasst"].read(TREE)
    assert isinstance(first, Row) and isinstance(second, Row)
    assert first.answers == ("No.", "Yes.") and first.judgements[0].tiers == ((1,), (0,))
    assert [m.content for m in second.messages] == ["Is fig a fruit?", "Yes.", "And zinc?"]
    assert second.answers == ("A metal.", "A tool.") and second.judgements[0].tiers == ((0,), (1,))
    assert first.conversation == second.conversation == "t1"
    assert refusal("oasst", TREE | {"prompt": TREE["prompt"] | {"replies": []}}) == "no_vote"
    assert refusal("oasst", {"message_id": "m", "parent_id": None, "text": "one message a row"}) == "shape"


def test_webgpt_prefers_the_higher_score_and_ties_on_equal_ones():
    assert read("webgpt", WEBGPT).judgements[0].tiers == ((1,), (0,))
    assert read("webgpt", WEBGPT | {"score_0": 0.0, "score_1": 0.0}).judgements[0].tiers == TIED
    assert refusal("webgpt", WEBGPT | {"score_0": None}) == "no_vote"


def test_summaries_are_asked_for_as_in_the_paper_and_judged_by_their_worker():
    row = read("summarize-from-feedback", SUMMARIES)
    assert row.messages[0].content == "SUBREDDIT: r/garden\nTITLE: Figs\nPOST: Figs grow.\nTL;DR:"
    assert row.answers == ("Growing figs", "Nothing") and row.judgements[0].tiers == ((0,), (1,))
    assert row.judgements[0].person == "w7"
    assert refusal("summarize-from-feedback", {"info": {}, "summary": {"text": "x", "axes": {}}}) == "score"
    assert refusal("summarize-from-feedback", SUMMARIES | {"choice": None}) == "no_vote"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("trl-preference", {"prompt": "Is fig a fruit?", **PAIR}),
        ("trl-preference", {"prompt": ASKED, **SAID}),
        ("trl-implicit-prompt", {name: [*ASKED, *side] for name, side in SAID.items()}),
        ("openai-preference", {"input": {"messages": ASKED}, "preferred_output": SAID["chosen"],
                               "non_preferred_output": SAID["rejected"]}),
        ("csv", {"prompt": "Is fig a fruit?", **PAIR}),
        ("csv", {"prompt": '[{"role": "user", "content": "Is fig a fruit?"}]', **PAIR}),
    ],
)  # fmt: skip
def test_one_pair_says_the_same_in_every_format_of_pairs(name: str, values: dict[str, Any]):
    row = read(name, values)
    assert (row.messages, row.answers) == ((QUESTION,), ("Yes.", "No."))
    assert row.judgements[0].tiers == BETTER_FIRST


def test_texts_with_an_implicit_prompt_part_where_a_word_begins():
    row = read("trl-implicit-prompt", {"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert row.messages[0].content == "The sky is" and row.answers == (" blue.", " black.")


def test_unpaired_rows_are_thumbs_and_say_who_gave_them_and_why():
    values = {"prompt": ASKED, "completion": SAID["chosen"], "label": False, "person": "ann", "reasons": ["wrong"]}
    [judged] = read("trl-unpaired", values | {"created_at": "2024-05-01T00:00:00Z"}).judgements
    assert (judged.up, judged.person, judged.reasons, judged.at_ms) == (False, "ann", ("wrong",), 1714521600000)
    in_csv = {"prompt": "Is fig a fruit?", "completion": "Yes.", "label": "up", "reasons": "kind; short"}
    assert read("csv", in_csv).judgements[0].reasons == ("kind", "short")
    assert refusal("trl-unpaired", values | {"label": 0.7}) == "no_vote"
    assert refusal("csv", {"prompt": "x", "completion": "y", "label": ""}) == "no_vote"
    assert refusal("csv", {"prompt": " ", "completion": "y", "label": "1"}) == "empty"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "equal"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "shape"),
        ({"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c"}]}, "shape"),
        ({"prompt": [{"role": "wizard", "content": "a"}], **PAIR}, "shape"),
        ({"prompt": [{"role": "user", "content": " "}], **PAIR}, "empty"),
        ({"prompt": "a", "strength": 9, **PAIR}, "shape"),
        ({"chosen": "b", "rejected": "c"}, "empty"),
        ({"prompt": ASKED, "chosen": SAID["chosen"] * 2, "rejected": SAID["rejected"]}, "diverges"),
    ],
)
def test_a_pair_that_cannot_be_used_says_why(values: dict[str, Any], reason: str):
    assert refusal("trl-preference", values) == reason


def test_tools_of_a_row_shape_its_prompt_and_a_call_stays_with_its_message():
    calls = [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    messages = [*ASKED, {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "content": "yes"}]
    values = {"input": {"messages": messages, "tools": [{"type": "function", "function": {"name": "look"}}]}}
    row = read(
        "openai-preference", values | {"preferred_output": SAID["chosen"], "non_preferred_output": SAID["rejected"]}
    )
    assert '"name":"look"' in row.asked and '"tool_calls"' in row.messages[1].other


# Feedback tools

OPEN_WEBUI = {
    "id": "f1", "user_id": "u1", "version": 0, "type": "rating", "created_at": 1700000000, "updated_at": 1700000001,
    "data": {"rating": 1, "model_id": "llama", "sibling_model_ids": None, "reason": "accurate", "comment": "good",
             "tags": ["fruit"], "details": {"rating": 9}},
    "meta": {"arena": False, "chat_id": "c1", "message_id": "m4", "message_index": 4, "tags": []},
    "snapshot": {"chat": {"id": "c1", "chat": {"history": {"currentId": "m4", "messages": {
        "m1": {"id": "m1", "parentId": None, "childrenIds": ["m2", "m5"], "role": "user", "content": "Is fig a fruit?"},
        "m2": {"id": "m2", "parentId": "m1", "childrenIds": ["m3"], "role": "assistant", "content": "Yes."},
        "m3": {"id": "m3", "parentId": "m2", "childrenIds": ["m4"], "role": "user", "content": "And zinc?"},
        "m4": {"id": "m4", "parentId": "m3", "childrenIds": [], "role": "assistant", "content": "A metal."},
        "m5": {"id": "m5", "parentId": "m1", "childrenIds": [], "role": "assistant", "content": "Another branch."},
    }}}}},
}  # fmt: skip


def test_open_webui_rates_one_message_of_the_tree_that_its_chat_is():
    row = read("open-webui", OPEN_WEBUI)
    assert [m.content for m in row.messages] == ["Is fig a fruit?", "Yes.", "And zinc?"] and row.answers == (
        "A metal.",
    )
    [judged] = row.judgements
    assert judged.up and judged.person == row.person == "u1" and judged.reasons == ("accurate", "fruit")
    assert judged.at_ms == 1700000001000 and row.conversation == "c1"
    assert read("open-webui", OPEN_WEBUI | {"data": {"rating": "-1"}}).judgements[0].up is False


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": {"rating": None}}, "no_vote"),
        ({"data": {"rating": 7}}, "no_vote"),
        ({"snapshot": None}, "no_answer"),
        ({"meta": {"message_id": "m9", "chat_id": "c1"}}, "no_answer"),
        ({"meta": {"message_id": "m3", "chat_id": "c1"}}, "no_answer"),
    ],
)
def test_open_webui_without_a_verdict_or_its_answer_is_refused(change: dict[str, Any], reason: str):
    assert refusal("open-webui", OPEN_WEBUI | change) == reason


def test_a_chat_whose_messages_are_their_own_ancestors_is_refused():
    messages = {"m4": {"parentId": "m4", "role": "assistant", "content": "x"}}
    snapshot = {"chat": {"chat": {"history": {"messages": messages}}}}
    assert refusal("open-webui", OPEN_WEBUI | {"snapshot": snapshot}) == "no_answer"


LANGCHAIN = [[{"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
               "kwargs": {"content": "Is fig a fruit?", "type": "human"}}]]  # fmt: skip
GENERATED = {"generations": [[{"text": "Yes.", "message": {"kwargs": {"content": "Yes.", "type": "ai"},
                                                          "id": ["x", "AIMessage"]}}]]}  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"messages": ASKED}, {"choices": [{"message": {"role": "assistant", "content": "Yes."}}]}),
        ({"messages": LANGCHAIN}, GENERATED),
        ({"question": "Is fig a fruit?"}, {"answer": "Yes."}),
        ({"input": {"messages": [{"type": "human", "content": "Is fig a fruit?"}]}}, {"output": "Yes."}),
        ({"messages": ASKED}, {"messages": [*ASKED, {"type": "ai", "content": "Yes."}]}),
    ],
)
def test_runs_of_different_clients_are_one_exchange(inputs: Any, outputs: Any):
    row = read("langsmith", {"id": "r1", "run_type": "llm", "inputs": inputs, "outputs": outputs, "end_time": None})
    assert (row.messages, row.answers, row.name) == ((QUESTION,), ("Yes.",), "r1")
    assert read("langfuse", {"id": "r1", "input": inputs, "output": outputs}).answers == ("Yes.",)


def test_a_feedback_of_langsmith_names_its_run_and_a_text_corrects_it():
    feedback = {"id": "f1", "run_id": "r1", "key": "user_score", "score": 0.0, "comment": "no", "correction": None}
    row = read("langsmith", feedback)
    assert (row.name, row.answers, row.judgements[0].up) == ("r1", (), False)
    assert read("langsmith", feedback | {"correction": "It is."}).judgements[0].correction == "It is."
    assert read("langsmith", feedback | {"feedback_source": {"type": "model"}}).judgements[0].source == "ai"
    assert refusal("langsmith", feedback | {"score": 0.7}) == "score"
    assert refusal("langsmith", {"id": "r", "inputs": {"messages": ASKED}, "outputs": None}) == "no_answer"
    assert refusal("langsmith", {"something": 1}) == "shape"


def test_a_trace_of_langfuse_may_hold_its_scores_and_what_cannot_be_used_of_them_is_refused_alone():
    trace = {
        "id": "t1", "input": {"messages": ASKED}, "output": "Yes.", "sessionId": "s1", "userId": "u1",
        "observations": [{"id": "o1", "input": "And zinc?", "output": {"content": "A metal."}, "model": "m"}],
        "scores": [
            {"id": "1", "traceId": "t1", "observationId": None, "name": "thumb", "value": 1, "dataType": "BOOLEAN"},
            {"id": "2", "traceId": "t1", "observationId": "o1", "name": "thumb", "value": 0, "source": "EVAL"},
            {"id": "3", "traceId": "t1", "observationId": None, "name": "toxicity", "value": 0.31},
        ],
    }  # fmt: skip
    exchange, inner, up, down, refused = FORMATS["langfuse"].read(trace)
    assert isinstance(exchange, Row) and isinstance(inner, Row) and isinstance(up, Row) and isinstance(down, Row)
    assert exchange.name == up.name == "t1" and inner.name == down.name == "o1" and inner.conversation == "s1"
    assert up.judgements[0].up is True and down.judgements[0].source == "ai"
    assert isinstance(refused, RowRefused) and refused.reason == "score"
    page = FORMATS["langfuse"].read({"data": [{"traceId": "t1", "name": "n", "value": 1, "id": "4"}], "meta": {}})
    assert [row.name for row in page if isinstance(row, Row)] == ["t1"]


GOOD = {
    "hh-rlhf": {"chosen": HEAD + "\n\nAssistant: yes", "rejected": HEAD + "\n\nAssistant: no"}, "shp": SHP,
    "ultrafeedback": ULTRA, "oasst": TREE, "webgpt": WEBGPT, "summarize-from-feedback": SUMMARIES,
    "ultrafeedback-binarized": {"prompt": "Is fig a fruit?", "score_chosen": 1, "score_rejected": 0, **SAID},
    "trl-preference": {"prompt": ASKED, **SAID},
    "trl-implicit-prompt": {name: [*ASKED, *side] for name, side in SAID.items()},
    "trl-unpaired": {"prompt": ASKED, "completion": SAID["chosen"], "label": True, "reasons": ["a"], "strength": 1},
    "openai-preference": {"input": {"messages": ASKED, "tools": [{"type": "function"}]},
                          "preferred_output": SAID["chosen"], "non_preferred_output": SAID["rejected"]},
    "votes": {"prompt": ASKED, "answers": ["a", "b", "c"], "tiers": [[2], [0, 1]], "reasons": ["x"]},
    "open-webui": OPEN_WEBUI, "csv": {"prompt": "x", **PAIR},
    "langsmith": {"id": "r1", "inputs": {"messages": LANGCHAIN}, "outputs": GENERATED, "extra": {"metadata": {}}},
    "langfuse": {"id": "t1", "input": {"messages": ASKED}, "output": GENERATED,
                 "observations": [{"id": "o1", "input": "x", "output": "y"}],
                 "scores": [{"id": "1", "name": "n", "value": 1, "observationId": "o1"}]},
}  # fmt: skip


OTHERS = [None, True, 0, -1.5, 1e300, "", "x", "-1", [], [1], [[]], [None], ["x"], {}, {"a": 1}, [{}]]


def mutated(value: Any, rng: random.Random, others: Sequence[Any] = OTHERS) -> Any:
    """The value with something in it, or itself, replaced by something else that JSON can hold."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        return value | {key: mutated(value[key], rng, others)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], mutated(value[at], rng, others), *value[at + 1 :]]
    return rng.choice(others)


@pytest.mark.parametrize("name", FORMATS)
def test_whatever_a_row_holds_it_is_understood_or_refused(name: str):
    rng = random.Random(0)
    assert GOOD.keys() == FORMATS.keys()
    assert all(isinstance(row, Row) for row in FORMATS[name].read(GOOD[name]))
    for _ in range(400):
        values = mutated(mutated(GOOD[name], rng), rng)
        if isinstance(values, dict):
            with suppress(RowRefused):
                list(FORMATS[name].read(values))
