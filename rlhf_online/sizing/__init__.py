"""How much is needed for so many people: arithmetic, over factors that were measured or are somebody's.

    people × messages a day ──▶ answers, tokens ──▶ engines (GPUs) · the log · Kafka's partitions and disks
                 × votes a message ──▶ votes ──▶ the trainer: work, memory, disk
                                                     versions a day ──▶ the store: disk, bandwidth × pods

Every factor says where it comes from: a bench that anyone can run (docs/results.md has its figures), a publication, a
data sheet, a default of this release's settings, or, where none is known, that it is an assumption to be measured.

    factors     what is multiplied, and where each comes from
    demand      what is asked
    reckoning   `needs`, pure, and `limits`
    document    docs/sizing.md
"""
