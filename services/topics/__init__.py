"""Kafka's topics made as the settings say, by a job: see `__main__`."""
