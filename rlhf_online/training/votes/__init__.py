"""Votes as the reward model learns from them.

`vote` is a vote in tokens, and a batch of them; `loss` the one loss over all kinds, with what is learned of people
(`intercepts`) and of implicit signals (`reliability`) beside it; `replay` keeps votes to repeat and to measure on, and
`evaluation` measures on them, in the figures of `measures`.
"""
