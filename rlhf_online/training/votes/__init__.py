"""How the reward model learns from votes, and is measured on them.

`batch` makes tensors of votes; `loss` is the one loss over all kinds, with what is learned beside it of raters
(`rater_bias`, `raters`, `beside_notes`), of signals (`signal_reliability`) and of votes that no person gave
(`label_reliability`);
`passes` are the optimiser's steps, and when they stop; `replay` keeps votes to repeat and to measure on, and
`evaluation` measures on them, in the figures of `measures`.
"""
