"""Types that several threads meet for the first time at once."""

import subprocess
import sys

PROGRAM = """
import sys
import threading

import msgspec

from kubelet_py.api import codec

ROUNDS, FIELDS = 40, 60
sys.setswitchinterval(1e-6)


def tree(round_number):
    parts = [msgspec.defstruct(f"Part{round_number}x{i}", [("name", str, "")]) for i in range(FIELDS)]
    fields = [(f"f{i}", part | None, None) for i, part in enumerate(parts)]
    return msgspec.defstruct(f"Whole{round_number}", fields)


for number in range(ROUNDS):
    kind = tree(number)
    ready = threading.Barrier(2)

    def use(read, value):
        ready.wait()
        read(kind, value)

    content = {f"f{i}": {"name": "x"} for i in range(FIELDS)}
    work = ((codec.decode, codec.encode(content)), (codec.from_builtins, content))
    threads = [threading.Thread(target=use, args=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_a_type_that_two_threads_meet_at_once_is_read_by_both() -> None:
    """Manifests are read in a thread, while the API server's pods come in; the whole process would end."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
