#!/bin/sh
# Make the virtual environment in the cache from requirements.lock, once per content of that file.
# Works with plain pip on a fresh Debian 12. Prints the environment's path on standard output, all else on standard error.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cache=${KUBELET_PY_CACHE:-$HOME/.cache/kubelet-py}
venv=$cache/venv
lock=$root/requirements.lock

say() { printf '%s\n' "$*" >&2; }
fresh_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# What package managers say is only worth reading when they fail.
quietly() {
    if ! "$@" >"$cache/venv.log" 2>&1; then
        tail -n 20 "$cache/venv.log" >&2
        return 1
    fi
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 "$@"; }

apt_install() {
    say "Installing Debian packages: $*"
    # the lists of a fresh machine are missing or old
    apt_get install --no-install-recommends "$@" >/dev/null 2>&1 ||
        { quietly apt_get update && quietly apt_get install --no-install-recommends "$@"; }
}

# The distribution's own comes first: it is what a node runs on, and is built with profiles, which one that was compiled
# on the spot seldom is. What lacks a module for environments is taken where nothing else is there.
find_python() {
    for needed in ensurepip,venv sys; do
        for candidate in /usr/bin/python3 python3.11 python3.12 python3.13 python3.14 python3; do
            if command -v "$candidate" >/dev/null 2>&1 && fresh_enough "$candidate" &&
                "$candidate" -c "import $needed" 2>/dev/null; then
                command -v "$candidate"
                return
            fi
        done
    done
    command -v apt-get >/dev/null || { say "No Python 3.11 or newer was found: install one."; exit 1; }
    apt_install python3
    fresh_enough /usr/bin/python3 || { say "/usr/bin/python3 is older than 3.11: install a newer one."; exit 1; }
    printf '%s\n' /usr/bin/python3
}

stamp=$venv/.made-from-$(sha256sum "$lock" | cut -c1-16)
mkdir -p "$cache"
exec 9>"$cache/venv.lock"
flock 9 # two make runs at once: the second finds the environment ready

if [ ! -e "$stamp" ] || [ ! -x "$venv/bin/python" ]; then
    if [ ! -x "$venv/bin/python" ] || ! fresh_enough "$venv/bin/python"; then
        python=$(find_python)
        say "Making the virtual environment $venv with $("$python" -V)"
        rm -rf "$venv"
        if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
            command -v apt-get >/dev/null || { say "$python cannot make virtual environments: install its venv module."; exit 1; }
            apt_install python3-venv
            rm -rf "$venv"
            "$python" -m venv "$venv" >&2 || /usr/bin/python3 -m venv "$venv" >&2
        fi
    fi
    say "Installing the packages of requirements.lock"
    quietly "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" ||
        { say "The packages could not be installed; all that pip said is in $cache/venv.log."; exit 1; }
    rm -f "$venv"/.made-from-*
    : >"$stamp"
fi
printf '%s\n' "$venv"
