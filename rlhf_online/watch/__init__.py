"""The watch on what goes wrong where a model learns from people: monitors that tell, and decide nothing of a version.

    drift       do people judge otherwise than they did? (thumbs by surprise, comparisons by token: `leanings`)
    tampering   who votes for which of the traits that no reward should pay for, as nobody else does? (`voters`)
    poison      the same of any word
    sycophancy  does a version yield to what its asker thinks, though it was sure?
    line        what creeps over many versions: over_optimisation, length, format, diversity

Pure, and known to no service: the trainer feeds them, and tells metrics, and operators by `rlhf-online watch`.
"""
