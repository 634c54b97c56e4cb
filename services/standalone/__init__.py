"""The three services on one machine, as child processes that are watched, restarted and stopped together."""
