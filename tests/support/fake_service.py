"""Stands in for chat, reward or trainer below the supervisor: writes its ready file, logs what happens to it, obeys.

    python -m tests.support.fake_service NAME --config FILE

`<state>/behaviour.json` may say, by name: `{"exit": 2, "says": "why"}` to end before announcing anything, or with
`"ready": true` right after it,
`{"readiness": {…}}` for the body of GET /readyz, `{"grandchild": true}` to start a process in a session of its own.
`<state>/story.jsonl` gets a line for each start and stop: {"name", "event", "pid", "settings"}.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rlhf_online import process


def main() -> None:
    name, settings = sys.argv[1], tomllib.loads(Path(sys.argv[3]).read_text())
    state = Path(settings["state_dir"])
    behaviour = _behaviour(state, name)

    def tell(event: str, **values: Any) -> None:
        with (state / "story.jsonl").open("a") as story:
            story.write(json.dumps({"name": name, "event": event, "pid": os.getpid(), **values}) + "\n")

    tell("start", settings=settings)
    if "exit" in behaviour:
        if behaviour.get("ready"):
            process.write_ready_file(Path(settings["ready_file"]), metrics=3)
        print(behaviour.get("says", "no reason"), file=sys.stderr)
        sys.exit(behaviour["exit"])
    if behaviour.get("grandchild"):
        grandchild = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
        tell("grandchild", grandchild=grandchild.pid)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(_behaviour(state, name).get("readiness", {"state": "ready", "serving": "fake"})).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", settings.get("http_port", 0)), Handler)
    port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    match name:
        case "chat":
            ports = {"http": port, "grpc": settings["grpc_port"] or 1}
        case "reward":
            ports = {"grpc": settings["grpc_port"] or port, "metrics": 2}
        case _:
            ports = {"metrics": 3}
    process.write_ready_file(Path(settings["ready_file"]), **ports)
    tell("ready", ports=ports)
    while not stop.wait(0.1):
        pass
    server.shutdown()
    thread.join()
    server.server_close()
    tell("stop")


def _behaviour(state: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((state / "behaviour.json").read_text()).get(name, {})
    except FileNotFoundError:
        return {}


if __name__ == "__main__":
    main()
