"""A TCP proxy on loopback that misbehaves on demand: late, cut, reset in mid-stream, replies lost."""

import contextlib
import socket
import threading
import time
from typing import Self

BLOCK = 64 << 10
LISTEN_S = 0.1


class Proxy:
    """Forwards every connection to `target`, a port on loopback. Attributes may be changed at any time.

    `delay_s` holds back what the target answers; `cut` ends all connections and refuses new ones; `reset_after` ends a
    connection after that many bytes from its client; `lose_replies` counts down: so many times an answer to a client
    that has sent more than `large` bytes since the last answer is swallowed, and the connection ended.
    """

    def __init__(self) -> None:
        self.target = 0
        self.delay_s = 0.0
        self.reset_after = 0
        self.lose_replies = 0
        self.large = 10_000
        self.resets = self.connections = 0
        self._cut = False
        self._closing = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LISTEN_S)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def cut(self) -> bool:
        return self._cut

    @cut.setter
    def cut(self, value: bool) -> None:
        self._cut = value
        if value:
            self._end_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._threads[0].join()  # nothing is accepted any more
        self._end_all()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            try:
                if self._cut:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            if self._cut or self._closing:  # meanwhile, and whoever ended the others did not see this one
                self._end(pair)
                continue
            sent = [0, 0]  # by the client: in all, and since the last answer
            for pump in (self._requests, self._replies):
                self._threads.append(threading.Thread(target=pump, args=(pair, sent), daemon=True))
                self._threads[-1].start()

    def _requests(self, pair: tuple[socket.socket, socket.socket], sent: list[int]) -> None:
        client, server = pair
        with contextlib.suppress(OSError):
            while data := client.recv(BLOCK):
                sent[0] += len(data)
                sent[1] += len(data)
                if self.reset_after and sent[0] > self.reset_after:
                    self.resets += 1
                    break
                server.sendall(data)
        self._end(pair)

    def _replies(self, pair: tuple[socket.socket, socket.socket], sent: list[int]) -> None:
        client, server = pair
        with contextlib.suppress(OSError):
            while data := server.recv(BLOCK):
                if self.lose_replies and sent[1] > self.large:
                    self.lose_replies -= 1
                    break
                sent[1] = 0
                if self.delay_s:
                    time.sleep(self.delay_s)
                client.sendall(data)
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for each in pair:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _end_all(self) -> None:
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair)
