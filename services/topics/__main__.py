"""`python -m services.topics --config FILE`: create and alter Kafka's topics as the table `log` of that file says.

What `rlhf-online topics apply` does, for a job in a cluster, with the packages of the chat service alone. It deletes
nothing, and what it has done already it leaves: it may be killed anywhere and run again.
"""

import argparse
import sys
from pathlib import Path

from rlhf_online import process
from rlhf_online.config import load_log
from rlhf_online.errors import ConfigError, LogError, RlhfError
from rlhf_online.eventlog import kafka_cluster


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 when the topics are as they must be; 1 or 2 with a message."""
    parser = argparse.ArgumentParser(prog="python -m services.topics", description="Creates and alters Kafka's topics.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML file of a service; table log")
    options = parser.parse_args(argv)
    try:
        if (cluster := kafka_cluster(load_log(options.config))) is None:
            raise ConfigError(f"{options.config}: log.url names no Kafka: 'kafka://host:port,host:port'")
        from rlhf_online.eventlog.kafka import topics

        done, left = topics.apply(cluster)
        print("\n".join([*done, *(() if left else ("the topics are as they must be",))]))
        if left:
            raise LogError("the topics are not as they must be:\n" + "\n".join(f"  {line}" for line in left))
    except RlhfError as error:
        return process.report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
