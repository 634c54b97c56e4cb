"""A port is free, ours, or somebody's who is named."""

import socket
import subprocess
import sys
from pathlib import Path

from rlhf_online.doctor.ports import port
from tests.support.ports import reserve

LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
time.sleep(600)
"""


def test_a_free_port_and_one_that_the_system_chooses() -> None:
    number = reserve()
    assert port("127.0.0.1", number, "chat's http_port", "services.chat").severity == "ok"
    assert port("127.0.0.1", 0, "chat's http_port", "services.chat").severity == "ok"


def test_who_holds_a_port_is_named(tmp_path: Path) -> None:
    number = reserve()
    process = subprocess.Popen([sys.executable, "-c", LISTEN, str(number), "services.chat"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        held = port("127.0.0.1", number, "reward's grpc_port", "services.reward")
        assert held.severity == "refuse" and f"(process {process.pid})" in held.what
        assert held.todo == "stop it, or give another reward's grpc_port"
        ours = port("127.0.0.1", number, "chat's http_port", "services.chat")
        assert ours.severity == "ok" and f"(process {process.pid})" in ours.what
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_an_address_that_is_none_of_this_machine() -> None:
    found = port("203.0.113.7", reserve(), "chat's http_port", "services.chat")
    assert found.severity == "refuse" and "203.0.113.7 cannot be listened on" in found.what


def test_a_held_port_over_ipv6_is_found_too() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        number = server.getsockname()[1]
        assert port("::1", number, "chat's http_port", "services.chat").severity == "refuse"
