"""What people type on a standalone node: `kubelet-py get pods`, `describe`, `logs`, `exec`, `apply`, `why`.

`main(argv)` carries out one command and gives the exit code. The words in COMMANDS tell these from a start of the
agent, whose command line has flags only. Heavy imports wait until a command needs them.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Literal

COMMANDS = ("get", "describe", "logs", "exec", "apply", "why")
# as a shell gives it for what SIGINT has ended
_INTERRUPTED = 130


def is_command(argv: Sequence[str]) -> bool:
    """Whether a command line (without the program's name) is one of these commands."""
    return bool(argv) and argv[0] in COMMANDS


def main(argv: Sequence[str]) -> int:
    """Carry out a command line: 0 when it worked, 1 with one clear line when it did not, 130 after Ctrl-C.

    exec gives its command's own code. Who stops reading, `head` say, has seen enough: that is no failure.
    """
    import http.client

    from kubelet_py.cli import commands, output
    from kubelet_py.cli.local_node import CommandError, find_local_node
    from kubelet_py.errors import ConfigError

    output.accept_any_text()
    handlers = {
        "get": commands.get,
        "describe": commands.describe,
        "logs": commands.logs,
        "exec": commands.execute,
        "apply": commands.apply,
        "why": commands.why,
    }
    arguments = _parse(argv)
    try:
        code = handlers[arguments.verb](find_local_node(arguments.config), arguments)
        sys.stdout.flush()
        return code
    except (CommandError, ConfigError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:
        output.discard_stdout()
        return 0
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments. What stands behind exec's first `--` is another program's and is not looked at."""
    if argv[0] != "exec" or "--" not in argv:
        return _parser().parse_args(argv)
    # argparse would take every later `--` for its own as well
    place = argv.index("--")
    parser = _parser(command_count="*")
    arguments = parser.parse_args(argv[:place])
    arguments.command = [*arguments.command, *argv[place + 1 :]]
    if not arguments.command:
        parser.error("exec: no command after --")
    return arguments


def _parser(command_count: Literal["+", "*"] = "+") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kubelet-py", description="Look at the pods of this node.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", default="", help="the agent's configuration file (or set KUBELET_PY_CONFIG)")
    shared.add_argument("-n", "--namespace", default="", help="`default` where one pod is named, else all")

    get = verbs.add_parser("get", parents=[shared], help="list pods, or show one whole")
    get.add_argument("resource", choices=("pods", "pod", "po"))
    get.add_argument("name", nargs="?", default="")
    get.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table")

    for verb, text in (("describe", "one pod in words"), ("why", "what the agent did for a pod, and why")):
        verbs.add_parser(verb, parents=[shared], help=text).add_argument("name")

    logs = verbs.add_parser("logs", parents=[shared], help="what a container wrote")
    logs.add_argument("name")
    logs.add_argument("-c", "--container", default="")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as more is written")
    logs.add_argument("-p", "--previous", action="store_true", help="the log of the run before")
    logs.add_argument("--tail", type=int, default=None, metavar="LINES", help="only the last lines; -1 for all")

    execute = verbs.add_parser("exec", parents=[shared], help="run a command in a container, without a terminal")
    execute.add_argument("name")
    execute.add_argument("-c", "--container", default="")
    execute.add_argument("--timeout", type=int, default=0, metavar="SECONDS", help="0 waits for ever")
    execute.add_argument("command", nargs=command_count, help="after --")

    apply = verbs.add_parser("apply", parents=[shared], help="put a pod's manifest into the manifest directory")
    apply.add_argument("-f", "--filename", required=True, help="a file, or - for standard input")
    return parser
