"""May the policy learn from this reward model, and may a candidate take the place of what serves?

    readiness   why the reward model blocks policy learning, before an update
    evidence    the candidate answers the prompts that the live version answered; both are scored by one reward version
    kl · win_rate · held_back · proxy_gap · reward_model · disagreement · length · repetition · distinct · entropy ·
    refusals · non_answers · golden · audit (traits) · new_words
                the checks: each reads the evidence and says what it measured and what it objects to
    golden_prompts · traits · languages · texts · statistics
                what they are made of, pure
    settings    the checks in the order in which they are asked, each with its own settings, `[gate.kl]`
    verdict     all findings together
    report      the same for people, with answers side by side

Another check is one module and one line in `settings`.
"""
