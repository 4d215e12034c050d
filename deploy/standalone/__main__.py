"""`python -m deploy.standalone up|down`: what `make up` and `make down` run."""

import argparse
import sys

from deploy.standalone import operations
from deploy.standalone.console import StandaloneError
from tests.lab.debian import PackageError


def main() -> int:
    """0 when it is done, 1 when a step could not be done."""
    parser = argparse.ArgumentParser(prog="deploy.standalone", description="A node without an API server, for a try.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring the node up and wait until its pod is Ready")
    up.add_argument("--runtime", choices=("docker", "containerd"), default="docker")
    commands.add_parser("down", help="remove everything that `up` made")
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            operations.up(arguments.runtime)
        else:
            operations.down()
    except (StandaloneError, PackageError) as error:
        sys.stderr.write(f"\n{error}\n")
        if arguments.command == "up":
            sys.stderr.write("\n`make down` removes what was started.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; `make up` goes on from here, `make down` removes what was started\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
