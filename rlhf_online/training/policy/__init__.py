"""What an update of the policy is made of.

`objectives` are what each algorithm learns from and its loss; `micro_batches` the passes over answers that fit into
memory; `average` the moving average of the weights.
"""
