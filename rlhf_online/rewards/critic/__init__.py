"""Notes by a model on what is wrong with an answer, beside what annotators judge (CriticGPT: McAleese et al. 2024,
arXiv 2407.00215).

    log ──answers──▶ `notes` ──faults, each with the words that it is in──▶ items of the annotators' queue

Who is given an item sees its notes or not, by a draw, and the vote says which: so their effect is measured, and the
reliability of who judges beside notes is learned apart (`training.votes.raters`). `planted` measures a critic on faults
that are known; `probed` keeps what it found, without which annotators see no notes of it. Nothing here knows torch.
"""
