"""Worker processes end with the one that started them, however that ends."""

import os
import signal
import subprocess
import sys

import pytest

WORK = """
import os, time
from vistk.evaluation.processes import in_order

def who(number):
    time.sleep(0.05)
    return os.getpid()

if __name__ == "__main__":
    made, seen = in_order(who, range(10000), 2), set()
    while len(seen) < 2:
        seen.add(next(made))
    print("at work", flush=True)
    list(made)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "SIGINT"])
def test_no_worker_is_left(how, tmp_path):
    """Workers hold the pipe that is read here, so that it ends with the last of them."""
    script = tmp_path / "work.py"
    script.write_text(WORK)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert parent.stdout.readline() == "at work\n"
        number = getattr(signal, how)
        if how == "SIGINT":
            os.killpg(parent.pid, number)  # as a terminal does
        else:
            parent.send_signal(number)
        _, said = parent.communicate(timeout=30)
    except BaseException:
        os.killpg(parent.pid, signal.SIGKILL)
        raise
    assert parent.returncode == -number
    assert said.count("Traceback") == (how == "SIGINT")
