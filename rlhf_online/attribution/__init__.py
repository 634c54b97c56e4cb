"""Which data a version of the weights has learned from, and which versions have learned from somebody's data.

    trained_on   a record beside each version: the votes and answers that its own update learned from
    lineage      a version with all that it goes back to, and people in them
    search       an answer, and what was said of it, in the log
    trace        all that is known of an answer, as the command line and the service tell it

Nothing here holds a text, or a name: votes and completions are known by their ids, people by keyed hashes.
"""
