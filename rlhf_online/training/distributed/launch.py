"""Start several processes of one machine that train together, as torchrun does, whose store no other machine reaches.

    python -m rlhf_online.training.distributed.launch --nproc-per-node N -m services.trainer --config FILE

The arguments are torchrun's. Its own store listens on every interface, without a credential, and whoever writes to it
can send a process's gradients elsewhere; it takes a listening socket instead, which is bound to the loopback address.
"""

import socket
import sys
from datetime import timedelta

from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
    run,
)
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from rlhf_online import process
from rlhf_online.errors import ConfigError, RlhfError

BACKEND, HOST = "loopback", "127.0.0.1"
WITHIN = timedelta(seconds=600)


class Loopback(RendezvousHandler):
    """One agent, which begins at once: the store is its own, on a free port."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        if parameters.max_nodes != 1:
            raise ConfigError(f"--nnodes is {parameters.max_nodes}, and these processes train on one machine: leave it")
        self._run_id = parameters.run_id
        listening = socket.create_server((HOST, 0))
        self._port = listening.getsockname()[1]
        # The store closes what it listens on.
        self._store = TCPStore(
            HOST, self._port, 1, True, WITHIN, wait_for_workers=False, master_listen_fd=listening.detach()
        )

    @property
    def use_agent_store(self) -> bool:
        return True

    def get_backend(self) -> str:
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        store = PrefixStore(self._run_id, self._store)
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(HOST, self._port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """Nothing: nobody else waits for it."""

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


def main() -> int:
    rendezvous_handler_registry.register(BACKEND, Loopback)
    try:
        arguments = run.parse_args(sys.argv[1:])
        arguments.rdzv_backend, arguments.standalone = BACKEND, False  # --standalone would choose a backend of its own
        run.run(arguments)
    except RlhfError as error:
        return process.report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
