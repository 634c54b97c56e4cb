"""How much each key and each person may ask: requests a minute, requests at once, tokens a day, votes an hour.

A budget fills evenly, up to what it allows in its period: who asked for nothing for long may ask for all of it at
once. What a request or a vote costs is taken from its key's budget and from its person's, or, if either has too little,
from none. Answers are paid for when they have ended, since nobody knows before how long they are: the last one may
overdraw, and what is owed fills up first.

    chat       requests, requests at once, tokens
    feedback   votes alone: chat that is busy or exhausted never refuses one

Where nobody needs a key, all who give none share the account of the key "". Who is nobody (no key, no name) has that
account alone. The operator has no limit. Beyond MOST people the one unused for longest is forgotten, and with it what
that person owes; the key still counts it.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import Counter

from rlhf_online.config import LimitSettings, Quota
from services.chat.access.caller import Caller
from services.chat.bodies.api_error import ApiError

MOST = 50_000
LEAST = 1e-3
"""Less than that of a unit is rounding."""


class Budget:
    """`limit` units a period; without any at first."""

    def __init__(self, limit: int, period: str, period_s: float) -> None:
        self.limit = limit
        self.period = period
        self.unit_s = period_s / limit

    def left(self, full_in_s: float) -> float:
        """Units that can be spent; less than 0 if it was overdrawn."""
        return self.limit - full_in_s / self.unit_s

    def wait_s(self, full_in_s: float, cost: int) -> float:
        """Until so many units can be spent, or all that there are; 0 if they can."""
        missing = min(cost, self.limit) - self.left(full_in_s)
        return missing * self.unit_s if missing > LEAST else 0.0


@dataclass(slots=True, eq=False)
class Account:
    """What a key or a person has used. `full_at`: when each of its budgets is full again, if it is not."""

    accounts: "Accounts"
    active: int = 0
    full_at: dict[str, float] = field(default_factory=dict)

    def full_in_s(self, what: str, now: float) -> float:
        return max(0.0, self.full_at.get(what, now) - now)

    def spend(self, what: str, cost: int, now: float) -> None:
        """Whether or not there is enough."""
        if budget := self.accounts.budgets.get(what):
            self.full_at[what] = now + self.full_in_s(what, now) + cost * budget.unit_s


class Accounts:
    """Those of the keys, or of the people: `whose` says which. `quota` is what each of them may."""

    def __init__(self, whose: str, quota: Quota) -> None:
        self.whose = whose
        self.at_once = quota.concurrent
        limits = {
            "requests": (quota.requests_per_minute, "a minute", 60.0),
            "tokens": (quota.tokens_per_day, "a day", 86400.0),
            "votes": (quota.votes_per_hour, "an hour", 3600.0),
        }
        self.budgets = {what: Budget(*limit) for what, limit in limits.items() if limit[0]}
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def of(self, name: str) -> Account:
        """The account of that name, from now on the last to be forgotten."""
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(self)
            if len(self._accounts) > MOST:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(name)
        return account

    def __len__(self) -> int:
        return len(self._accounts)


class RateLimited(ApiError):
    """429, saying when there is enough again; `limits` are OpenAI's headers."""

    def __init__(self, message: str, wait_s: float, limits: dict[str, str]) -> None:
        super().__init__(
            f"{message}; try again in {duration(wait_s)}",
            status=429,
            type="rate_limit_error",
            code="rate_limit_exceeded",
            retry_after_s=max(1, math.ceil(wait_s)),
        )
        self._limits = limits

    def headers(self) -> dict[str, str]:
        return {**super().headers(), **self._limits}


class TooLate(ApiError):
    """504. OpenAI's clients would ask again at once, and wait as long again for nothing: they are told not to."""

    def __init__(self, allowed_s: float) -> None:
        super().__init__(
            f"the answer was not there after {allowed_s:g} s, as long as one may take (chat.limits.answer_timeout_s): "
            "ask for a shorter one, or when fewer people ask",
            status=504,
            type="server_error",
            code="answer_timeout",
        )

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "x-should-retry": "false"}


class Visit:
    """A chat request that was let in: `leave` when it has ended. `headers` are OpenAI's, for its answer.

    Its answer may take `allowed_s`, however often it is sent to the engine.
    """

    def __init__(
        self,
        caller: Caller,
        used: list[Account],
        headers: dict[str, str],
        clock: Callable[[], float],
        allowed_s: float,
    ) -> None:
        self.caller = caller
        self.headers = headers
        self.allowed_s = allowed_s
        self._used = used
        self._clock = clock
        self._begun = clock()

    def left_s(self) -> float:
        """What is left of `allowed_s`. Raises TooLate if nothing is."""
        left_s = self._begun + self.allowed_s - self._clock()
        if left_s <= 0:
            raise TooLate(self.allowed_s)
        return left_s

    def leave(self, tokens: int) -> None:
        """It has ended, after so many tokens of prompt and answers; called again, it does nothing."""
        now = self._clock()
        for account in self._used:
            account.active -= 1
            account.spend("tokens", tokens, now)
        self._used = []


class Limits:
    """`refused` counts whose limit it was, and which."""

    def __init__(self, settings: LimitSettings, refused: Counter, clock: Callable[[], float] = time.monotonic) -> None:
        self.keys = Accounts("key", settings.key)
        self.people = Accounts("person", settings.person)
        self._refused = refused
        self._clock = clock
        self._answer_s = settings.answer_timeout_s

    def chat(self, caller: Caller) -> Visit:
        """Let a chat request in. Raises RateLimited."""
        used, now = self._used(caller), self._clock()
        for account in used:
            at_once = account.accounts.at_once
            if at_once and account.active >= at_once:
                self._refused.labels(whose=account.accounts.whose, limit="concurrent").inc()
                message = f"{_subject(account)} has {account.active} chat requests in progress, as many as are allowed"
                raise RateLimited(message, 1.0, _headers(used, now))
            self._check(account, "requests", 1, now, used)
            self._check(account, "tokens", 1, now, used)
        for account in used:
            account.active += 1
            account.spend("requests", 1, now)
        return Visit(caller, used, _headers(used, now), self._clock, self._answer_s)

    def feedback(self, caller: Caller) -> None:
        """Let a vote in. Raises RateLimited."""
        used, now = self._used(caller), self._clock()
        for account in used:
            self._check(account, "votes", 1, now, [])
        for account in used:
            account.spend("votes", 1, now)

    def _used(self, caller: Caller) -> list[Account]:
        """Whom it costs something."""
        if "operator" in caller.roles:
            return []
        key = [self.keys.of(caller.key_id)]
        return [*key, self.people.of(caller.person)] if caller.person else key

    def _check(self, account: Account, what: str, cost: int, now: float, used: list[Account]) -> None:
        budget = account.accounts.budgets.get(what)
        if budget and (wait_s := budget.wait_s(account.full_in_s(what, now), cost)):
            self._refused.labels(whose=account.accounts.whose, limit=what).inc()
            message = f"{_subject(account)} may have {budget.limit} {what} {budget.period}, and has used them"
            raise RateLimited(message, wait_s, _headers(used, now))


def _subject(account: Account) -> str:
    return f"this {account.accounts.whose}"


def _headers(used: list[Account], now: float) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*`: of requests and tokens, those of the account that has least left."""
    headers: dict[str, str] = {}
    for what in ("requests", "tokens"):
        found = [
            (budget.left(full_in_s), budget.limit, full_in_s)
            for account in used
            if (budget := account.accounts.budgets.get(what))
            for full_in_s in (account.full_in_s(what, now),)
        ]
        if found:
            left, limit, full_in_s = min(found)
            headers[f"x-ratelimit-limit-{what}"] = str(limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(left + LEAST)))
            headers[f"x-ratelimit-reset-{what}"] = duration(full_in_s)
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes one: "12ms", "1.5s", "6m0s", "1h0m5s"; rounded up to a millisecond."""
    milliseconds = math.ceil(seconds * 1000 - LEAST)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest / 1000:g}s"
