"""Rules that an operator writes down: what an answer is like, and what that is worth, with no vote and no model.

    rules.toml ── `rules apply` ──▶ record in the store ──▶ the trainer, once a cycle ──▶ each request for scores
    ([propositions], [rules])       (`record`)                                            rewards (`ruleset`)

A proposition (`propositions`) is a feature of an answer in [0, 1]; a rule's reward is a linear combination of such, in
standard deviations of the reward model's score, and is added to that (rule-based rewards, Mu et al. 2024, arXiv
2411.01111). Its weights are given, or fitted to answers in order (`fitting`). The objective `rule:NAME` counts as much
as its weight among the objectives' says (`rewards.weights`). Nothing here knows torch.
"""
