"""Programs that tests start as a user does."""

import os
import signal
import subprocess
import sys
import time

PATIENCE = 90


def words(*arguments):
    return [sys.executable, "-m", "ps_vae", *map(str, arguments)]


class Processes:
    """Started in the background; what each says goes to a file of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def start(self, *command):
        log = self.folder / f"log-{len(self.started)}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(word) for word in command], stdout=file, stderr=file, cwd=self.folder, start_new_session=True
            )
        process.log = log
        self.started.append(process)
        return process

    def until(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "\n".join(p.log.read_text() for p in self.started)
            time.sleep(0.01)

    def said(self, process, text):
        self.until(lambda: text in process.log.read_text() or process.poll() is not None)
        assert text in process.log.read_text()

    def close(self):
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
