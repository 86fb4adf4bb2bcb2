"""The program of the demo's server process: pymap, and an end to it when the demo ends, however that happens.

Its standard input is a pipe from the demo: one line of JSON, and then nothing until the demo ends it. Even a demo that
is killed leaves neither this process nor its temporary folder behind. Run as a file, so it imports nothing of backupd.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading


def main() -> None:
    """Serve until standard input ends. The line: {"arguments": [...], "folder": "..."}; arguments are pymap's, which
    come this way because the password in them is not for the list of processes."""
    begin = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_demo, args=(begin["folder"],), daemon=True).start()
    from pymap.main import main as serve

    sys.argv = ["pymap", *begin["arguments"]]
    serve()


def _end_with_the_demo(folder: str) -> None:
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
