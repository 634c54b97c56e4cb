"""How the reward model learns from votes, and is measured on them.

`batch` makes tensors of votes; `loss` is the one loss over all kinds, with what is learned of raters (`rater_bias`,
`raters`) and of implicit signals (`signal_reliability`) beside it; `passes` are the optimiser's steps, and
when they stop; `replay` keeps votes to repeat and to measure on, and `evaluation` measures on them, in the figures of
`measures`.
"""
