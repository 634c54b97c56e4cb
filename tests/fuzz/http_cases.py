"""Requests that schemathesis makes of `/openapi.json`, by everybody, about what there really is.

Of each operation there are requests as it describes them and requests that are wrong in a way it describes. What comes
back must be as described, refuse whoever may not ask, tell nobody of another's, and say what is wrong in OpenAI's form.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jsonschema
import requests
import schemathesis
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode, Response
from schemathesis.core import NotSet
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from rlhf_online.sse import DONE, EventParser
from services.chat.api.operation import Operation
from services.chat.api.operations import OPERATIONS
from tests.fuzz.known import Known
from tests.fuzz.people import Credential
from tests.fuzz.search import Found

CONFIG = {
    "output": {"sanitization": {"enabled": False}},
    "operations": [
        {"include-path": operation.path, "max-stream-events": 1}
        for operation in OPERATIONS
        if operation.response == "text/event-stream"  # which has no end
    ],
}
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
OF_ONE_PERSON = {
    "comparison": "comparison_id",
    "conversation": "conversation_id",
    "erase": "conversation_id",
    "feedback_status": "event_id",
    "edit_feedback": "event_id",
    "withdraw_feedback": "event_id",
}
"""Operations on what belongs to a person, and the parameter that names it."""
OF_THE_WHOLE = ("invalid_json", "nested_too_deeply", "invalid_value", "missing_parameter", "invalid_http")
"""Mistakes that are of no single field."""
TIMEOUT_S = 30.0
NDJSON = "application/x-ndjson"
Draw = tuple[Case, Credential, int]


@dataclass(slots=True)
class _Again:
    """What came back to whom, and the command that asks for it: made into words only where something is wrong."""

    case: Case
    who: Credential
    headers: dict[str, str]
    url: str
    response: Response | None = None

    def __str__(self) -> str:
        told = f"{self.response.status_code} {self.response.content[:400]!r}" if self.response else "no answer"
        return f"as {self.who.name}, {told}\n{self.case.as_curl_command(self.headers, base_url=self.url)}"


class HttpCases:
    """Of one service. `strategies` are by operation: what is drawn, and what is done with it."""

    def __init__(self, url: str, who: Sequence[Credential], known: Known) -> None:
        self._url, self._who, self._known = url, who, known
        self._session = requests.Session()
        config = schemathesis.Config.from_dict(CONFIG)
        document = requests.get(f"{url}/openapi.json", timeout=TIMEOUT_S).json()
        self._events = _take_events(document)
        for each in (each for methods in document["paths"].values() for each in methods.values()):
            each.pop("security", None)  # or schemathesis sends credentials of its own, and leaves ours out
        described = schemathesis.openapi.from_dict(document, config=config)
        self._described = {
            operation.definition.raw["operationId"]: operation
            for operation in (each.ok() for each in described.get_all_operations() if isinstance(each, Ok))
        }
        schemathesis.openapi.media_type(NDJSON, self._votes())
        assert self._described.keys() == {operation.name for operation in OPERATIONS}

    def searches(self) -> Iterator[tuple[Operation, SearchStrategy[Any], Callable[[Any], str]]]:
        """An operation, what is drawn for it, and the attempt; those first whose answers the later ones name."""
        for operation in OPERATIONS:
            wrong = (GenerationMode.NEGATIVE,) if operation.body or operation.query else ()
            for mode in (GenerationMode.POSITIVE, *wrong):
                cases = self._described[operation.name].as_strategy(generation_mode=mode)
                drawn = st.tuples(cases, self._callers(operation), st.integers(0, 1 << 16))
                yield operation, drawn, lambda draw, operation=operation: self._attempt(operation, *draw)

    def _votes(self) -> SearchStrategy[bytes]:
        """Bodies of many votes, some of them wrong."""
        modes = (GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        vote = st.one_of(*(self._described["feedback"].as_strategy(generation_mode=mode) for mode in modes))
        return st.lists(vote.map(_line), max_size=4).map(b"\n".join)

    def _callers(self, operation: Operation) -> SearchStrategy[Credential]:
        allowed = [one for one in self._who if one.refusal(operation) is None]
        return st.one_of(st.sampled_from(allowed), st.sampled_from(allowed), st.sampled_from(self._who))

    def _attempt(self, operation: Operation, case: Case, who: Credential, number: int) -> str:
        if number:
            self._fill(case, random.Random(number))
        headers = dict(who.headers())
        again = _Again(case, who, headers, self._url)
        owners = self._known.persons.get(case.path_parameters.get(OF_ONE_PERSON.get(operation.name, ""), ""))
        try:
            response = again.response = case.call(self._url, self._session, headers, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise Found(f"{type(error).__name__}, {error}: {again}") from error
        documented = response.status_code == 503 and 503 in (*operation.errors, *operation.also)
        if response.status_code >= 500 and not documented:
            raise Found(f"an error of the service: {again}")
        if (refusal := who.refusal(operation)) is not None:
            if response.status_code != refusal:
                raise Found(f"expected {refusal}: {again}")
        elif response.status_code == 401:
            raise Found(f"refused, and may: {again}")
        if response.status_code == 200 and owners and who.person not in owners:
            raise Found(f"told of what is another person's: {again}")
        self._check_words(operation, response, again)
        try:
            refusable = not operation.lines and not _holds_null(case.body)  # a line is refused alone; null is no field
            checks = [*CHECKS, negative_data_rejection] if refusable else CHECKS
            case.validate_response(response, checks=checks, headers=headers)
        except FailureGroup as group:
            told = "; ".join(f"{failure.title}: {failure.message}" for failure in group.exceptions)
            raise Found(f"{told}\n{again}") from group
        if response.status_code == 200:
            self._check_events(operation, response, again)
            self._learn(operation, response, who.person)
        return str(response.status_code)

    def _check_words(self, operation: Operation, response: Response, again: _Again) -> None:
        if response.status_code < 400 or response.status_code in operation.also or not response.content:
            return
        try:
            error = json.loads(response.content)["error"]
        except (ValueError, KeyError, TypeError):
            raise Found(f"no error of OpenAI's form: {again}") from None
        if not error["message"] or not error["type"]:
            raise Found(f"nothing is said: {again}")
        if response.status_code == 400 and error["param"] is None and error["code"] not in OF_THE_WHOLE:
            raise Found(f"no field is named: {again}")

    def _check_events(self, operation: Operation, response: Response, again: _Again) -> None:
        if response.headers["content-type"][0].startswith("text/event-stream"):
            for event in EventParser().feed(response.content):
                if event != DONE and (wrong := next(self._events[operation.name].iter_errors(json.loads(event)), None)):
                    raise Found(f"the stream is not as described, {wrong.message}: {again}")

    def _fill(self, case: Case, rng: random.Random) -> None:
        """Name what there is."""
        if isinstance(case.body, dict | list):
            case.body = self._known.filled("", case.body, rng)
        elif isinstance(case.body, bytes) and case.media_type == NDJSON:
            case.body = b"\n".join(self._filled_line(line, rng) for line in case.body.split(b"\n"))
        for name, value in case.path_parameters.items():
            known = self._known.filled(name, value, rng)
            case.path_parameters[name] = value if known == value else quote(known, safe="")
        if isinstance(case.query, Mapping):
            case.query = {name: self._known.filled(name, value, rng) for name, value in case.query.items()}

    def _filled_line(self, line: bytes, rng: random.Random) -> bytes:
        try:
            return json.dumps(self._known.filled("", json.loads(line), rng)).encode()
        except ValueError:
            return line

    def _learn(self, operation: Operation, response: Response, person: str) -> None:
        """Note the ids that an answer gives out."""
        match operation.name:
            case "complete" | "complete_text":
                reply = _last(response, "rlhf")
                told = reply["rlhf"]
                self._known.answered([reply["id"]], told["conversation_id"], person, logged=told["logged"])
            case "compare":
                reply = _last(response, "comparison_id")
                self._known.answered(
                    [one["answer"]["completion_id"] for one in reply["answers"]],
                    reply["conversation_id"],
                    person,
                    logged=reply["logged"],
                    comparison=reply["comparison_id"],
                )
            case "feedback" | "edit_feedback" | "withdraw_feedback":
                self._known.voted(json.loads(response.content)["event_id"], person)
            case "feedback_batch":
                for result in json.loads(response.content)["results"]:
                    if "event_id" in result:
                        self._known.voted(result["event_id"], person)
            case _:
                pass


def _holds_null(value: object) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(_holds_null, inner))


def _line(vote: Case) -> bytes:
    match vote.body:
        case bytes() as body:
            return body
        case NotSet():
            return b""
        case body:
            return json.dumps(body).encode()


def _last(response: Response, holds: str) -> dict[str, Any]:
    """The reply, or the end of its stream, with what it must hold."""
    if response.headers["content-type"][0] == "application/json":
        return json.loads(response.content)
    *_, end = (json.loads(event) for event in EventParser().feed(response.content) if event != DONE)
    if holds not in (end := end.get("final", end)):
        raise Found(f"the stream ends with {end}")
    return end


def _take_events(document: dict[str, Any]) -> dict[str, jsonschema.Draft202012Validator]:
    """By operation what an event of its stream is, which is taken out of the description.

    OpenAPI 3.1 has no words for it: OpenAI's description and ours name what `data` holds, schemathesis reads the event.
    """
    found: dict[str, jsonschema.Draft202012Validator] = {}
    for operation in (each for methods in document["paths"].values() for each in methods.values()):
        if stream := operation["responses"]["200"]["content"].get("text/event-stream"):
            schema = {**stream.pop("schema"), "components": document["components"]}
            found[operation["operationId"]] = jsonschema.Draft202012Validator(schema)
    return found
