"""The program: carry out what a container's configuration says beside the standard, then become the real runtime.

Owns the command line, the files and the errors. Every verb but `create`, `start` and `exec` is the real runtime at
once, `exec` too where the host has all capabilities, and `start` after a look at one name. An error is written where
the runtime's own would be (the file of `--log`, which the engine reads, and stderr).
"""

from __future__ import annotations

import os
import sys

from dockershim.oci import capabilities, terminal
from dockershim.oci import instructions as words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

RUNTIME_OPTION = "--oci-runtime"
DEFAULT_RUNTIME = "runc"
_WITH_VALUE = ("--root", "--log", "--log-format", "--criu", "--rootless")


def main() -> int:
    """Entry point."""
    arguments, runtime = take_runtime(sys.argv[1:])
    verb, log = find_verb(arguments)
    if verb >= 0 and arguments[verb] == words.USER_NAMESPACES_VERB:
        from dockershim.oci import idmap

        sys.stdout.write(idmap.supports(arguments[verb + 1]))
        return 0
    if verb >= 0 and arguments[verb] == words.SPOOLER_VERB:
        from dockershim.oci import spooler

        return spooler.main(arguments[verb + 1])
    name = arguments[verb] if verb >= 0 else ""
    if name in ("create", "start", "exec"):
        try:
            root = value_of(arguments[:verb], "--root")
            if name == "create":
                bundle = value_of(arguments[verb + 1 :], "--bundle", "-b") or "."
                prepare(os.path.join(bundle, "config.json"), arguments[-1], root)
            elif name == "start":
                for fifo in terminal.engine_fifos(root, arguments[-1]):
                    terminal.give_name_back(fifo)
            else:
                fit_process(value_of(arguments[verb + 1 :], "--process", "-p"))
        except Exception as error:
            return report(log, f"{words.PROGRAM}: {error}" if str(error) else f"{words.PROGRAM}: {error!r}")
    try:
        become(runtime, arguments)
    except OSError as error:
        return report(log, f"{words.PROGRAM}: cannot run the OCI runtime {runtime}: {error.strerror}")


def become(runtime: str, arguments: Sequence[str]) -> NoReturn:
    """Turn into the real runtime."""
    os.execvp(runtime, [runtime, *arguments])


def take_runtime(arguments: Sequence[str]) -> tuple[list[str], str]:
    """The runtime's own arguments, and which runtime it is: our one option, which comes first."""
    rest = list(arguments)
    if rest and rest[0].startswith(f"{RUNTIME_OPTION}="):
        return rest[1:], rest[0].partition("=")[2] or DEFAULT_RUNTIME
    return rest, DEFAULT_RUNTIME


def find_verb(arguments: Sequence[str]) -> tuple[int, str]:
    """Where the verb stands (-1: nowhere), and the file of --log."""
    index, log = 0, ""
    while index < len(arguments):
        argument = arguments[index]
        if not argument.startswith("-"):
            return index, log
        name, equals, value = argument.partition("=")
        if name in _WITH_VALUE and not equals:
            index += 1
            value = arguments[index] if index < len(arguments) else ""
        if name == "--log":
            log = value
        index += 1
    return -1, log


def value_of(arguments: Sequence[str], *names: str) -> str:
    """The value of an option of the verb; empty when it is not there."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else "".join(arguments[index + 1 : index + 2])
    return ""


def prepare(path: str, container_id: str, root: str) -> None:
    """Carry out the instruction in a configuration file; without one nothing is touched. `root` is the runtime's."""
    with open(path, "rb") as file:
        data = file.read()
    if f'"{words.KEY}"'.encode() not in data:
        return
    import json

    from dockershim.oci import spec as oci_spec

    spec = json.loads(data)
    instruction = oci_spec.take_instruction(spec)
    if instruction is None:
        return
    oci_spec.edit(spec, instruction)
    if words.POSSIBLE_CAPABILITIES in instruction:
        oci_spec.keep_capabilities(spec["process"], _bounding_set())
    if words.LOG_SPOOL in instruction:
        from dockershim.oci import spool

        spool.take_output(instruction[words.LOG_SPOOL], container_id)
    if words.USER_NAMESPACE in instruction:  # after that: it gives the output to the namespace's root
        from dockershim.oci import idmap

        idmap.stage(spec, instruction[words.USER_NAMESPACE], oci_spec.user_namespace_path(spec))
    temporary = f"{path}.{words.PROGRAM}"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as edited:
        edited.write(json.dumps(spec, separators=(",", ":")))
    os.replace(temporary, path)
    if words.TERMINAL_SPOOL in instruction:  # last: a name that is lent concerns others
        # where Docker has no such FIFO nothing is spooled, and dockershim sees that and says it
        directory = instruction[words.TERMINAL_SPOOL]
        for fifo in terminal.engine_fifos(root, container_id):
            if terminal.take_output(directory, container_id, fifo):
                break


def fit_process(path: str) -> None:
    """A process that is added gets only what the host can give; the engine asks for what the first one should have."""
    bounding, everything = _bounding_set(), (1 << len(capabilities.CAPABILITIES)) - 1
    if not path or bounding & everything == everything:
        return
    import json

    from dockershim.oci import spec as oci_spec

    with open(path, "r+") as file:
        process = json.load(file)
        oci_spec.keep_capabilities(process, bounding)
        file.seek(0)
        file.truncate()
        json.dump(process, file)


def _bounding_set() -> int:
    with open("/proc/self/status") as file:
        return capabilities.bounding_set(file.read())


def report(log: str, message: str) -> int:
    """Say what is wrong where the engine looks for it; the exit code."""
    sys.stderr.write(message + "\n")
    if log:
        import json
        import time

        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            with open(log, "a") as file:
                file.write(json.dumps({"level": "error", "msg": message, "time": stamp}) + "\n")
        except OSError:
            return 1  # stderr has it
    return 1
