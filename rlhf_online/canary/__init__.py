"""A candidate and the live version side by side before people: what they say, how sure it is, and what follows.

    betting     whether people prefer the candidate: a test that may be looked at whenever one likes
    people      what counts in it: each person once, however much they say
    strengths   how strong versions are, with intervals: for people to look at, never to decide by

    record      which version is the canary and how many conversations it answers: in the store, beside the live one
    tally       what the log says of it: votes for the test, and how its answers fare for the guardrails
    decision    hold, go on to the next share, promote, or take back
    report      how it fares, for people
    settings    `[canary]`, the trainer's

The trainer counts and decides (`training.canary`), engines hold the canary (`engine.canary`), and the chat service
gives it to its share of the conversations and to comparisons (`completions.in_flight`, `comparisons`).
"""
