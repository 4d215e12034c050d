"""A CNI plugin that passes on what it gets, or does what the file `orders` of its configuration says.

`PLACE VERB FAULT PID`: PLACE and VERB are its own name and what it is asked for. fail: a CNI error. crash: it dies by a
signal. garbage: its answer is no JSON. empty: it has no result. hang: it never ends. kill: PID is killed, and it works.
"""

import json
import os
import signal
import sys

content = json.load(sys.stdin)
verb = os.environ["CNI_COMMAND"]
with open(content["orders"]) as file:
    place, at, fault, pid = file.read().split(" ")
if (place, at) != (os.path.basename(sys.argv[0]).removeprefix("faulty-"), verb):
    fault = ""
if fault == "fail":
    print(json.dumps({"cniVersion": content["cniVersion"], "code": 100, "msg": "the test wants it so"}))
    sys.exit(1)
if fault == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if fault == "hang":
    signal.pause()
if fault == "garbage":
    print("neither nor")
    sys.exit(0)
if fault == "kill":
    os.kill(int(pid), signal.SIGKILL)
if verb == "ADD" and fault != "empty":
    print(json.dumps(content.get("prevResult") or {"cniVersion": content["cniVersion"], "interfaces": [], "ips": []}))
