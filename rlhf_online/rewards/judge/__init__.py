"""Labels by a model: which of two answers is better by a principle, asked of any OpenAI-compatible endpoint.

    log ──pairs──▶ `labelling` ──both orders──▶ `endpoint` ──A or B, with probabilities──▶ `verdicts`
                       └──── a vote with the source "ai", or a reason why there is none ◀──┘

What such a vote weighs against people's is learned where the reward model learns (`training.votes.label_reliability`).
Invariant: a label is given only where both orders of the answers say the same, and sure enough; whatever else happens
is counted by its reason and labels nothing. Nothing here knows torch.
"""
