"""The command ``vismae`` as the shell blocks of the documentation meet it in tests.

The same program on the same words, only small: few steps, small networks and images. A server goes
to the background, as a reader leaves it in another terminal; the block goes on when it answers.
"""

import socket
import subprocess
import sys
import time
from pathlib import Path

import yaml

from vismae.cli import main

_SMALL = {
    "model.size": "nano",
    "data.image_size": 64,
    "data.batch_size": 4,
    "data.workers": 0,
    "trainer.max_steps": 2,
}
_SERVER_SECONDS = 60.0


def _small(words: list[str]) -> list[str]:
    """Return the words of a command with settings that make it quick."""
    command = words[0] if words else ""
    if command in ("pretrain", "finetune") and "--help" not in words:
        return [*words, *_assignments(_SMALL)]
    if command == "study" and "--config" in words:
        place = words.index("--config") + 1
        config = yaml.safe_load(Path(words[place]).read_text(encoding="utf-8"))
        config["settings"] = {**config.get("settings", {}), **_SMALL}
        config["bootstrap"] = 100
        small = Path(words[place]).with_suffix(".small.yaml")
        small.write_text(yaml.safe_dump(config), encoding="utf-8")
        return [*words[:place], str(small), *words[place + 1 :]]
    return words


def _assignments(settings: dict[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def _serve(words: list[str]) -> None:
    """Start a server that outlives this process; its id goes to ``servers.txt``."""
    port = int(words[words.index("--port") + 1]) if "--port" in words else _free_port()
    rest = words if "--port" in words else [*words, "--port", str(port)]
    with Path("server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from vismae.cli import main; main()", *rest],
            stdout=log,
            stderr=log,
        )
    with Path("servers.txt").open("a", encoding="utf-8") as file:
        file.write(f"{process.pid}\n")
    deadline = time.monotonic() + _SERVER_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(Path("server.log").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["web"] and "--help" not in sys.argv:
        _serve(sys.argv[1:])
    else:
        sys.argv[1:] = _small(sys.argv[1:])
        main()
