"""`[limits]` of the chat service: how large a request may be, and how much each key and each person may ask."""

from pydantic import Field

from rlhf_online.config.base import Count, Positive, Section


class Quota(Section):
    """What one may ask; 0 is no limit."""

    requests_per_minute: Count = Field(default=0, description="Chat requests a minute.")
    concurrent: Count = Field(default=0, description="Chat requests at once.")
    tokens_per_day: Count = Field(default=0, description="Tokens of prompts and answers a day.")
    votes_per_hour: Count = Field(default=0, description="Votes an hour.")


class KeyQuota(Quota):
    """What a key may ask, for all people whose names it signs; without keys all who call share it."""

    requests_per_minute: Count = Field(default=60_000, description="Chat requests a minute.")
    tokens_per_day: Count = Field(default=1_000_000_000, description="Tokens of prompts and answers a day.")
    votes_per_hour: Count = Field(default=100_000, description="Votes an hour.")


class PersonQuota(Quota):
    """What a person may ask, whatever keys it uses."""

    requests_per_minute: Count = Field(default=600, description="Chat requests a minute.")
    concurrent: Count = Field(default=64, description="Chat requests at once.")
    tokens_per_day: Count = Field(default=10_000_000, description="Tokens of prompts and answers a day.")
    votes_per_hour: Count = Field(default=3600, description="Votes an hour.")


class LimitSettings(Section):
    max_body_bytes: Positive = Field(default=1 << 20, description="Largest request body.")
    max_answers: Positive = Field(default=16, description="Largest n of one request.")
    max_concurrent: Positive = Field(default=512, description="Chat requests in progress at once; beyond that 429.")
    answer_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="How long an answer may take, from the request's arrival to its last token; beyond that 504.",
    )
    max_tokens: Positive = Field(default=1024, description="Largest, and default, token limit of an answer.")
    key: KeyQuota = KeyQuota()
    person: PersonQuota = PersonQuota()
