#!/bin/sh
# Stands in for systemd where a suite restarts the agent: `unit.sh DIR COMMAND...` keeps a command running as long as
# DIR/wanted exists; under the name `systemctl` in DIR it takes the verbs that the node suite uses, for that one unit;
# under the name `sudo` it runs the command.
set -u
running() { [ -e "$dir/pid" ]; }
signal() {
    rm -f "$dir/wanted"
    if running; then kill -TERM "$(cat "$dir/pid")" 2>/dev/null; fi
}
wait_for() { until "$@"; do sleep 0.05; done; }
gone() { ! running; }

case ${0##*/} in
sudo) exec "$@" ;;
systemctl)
    dir=$(dirname "$0")
    case $1 in
    list-units)
        case $* in
        *--state=running*) running || exit 0 ;;
        esac
        echo "kubelet-lab.service loaded active running the agent of this lab" ;;
    reset-failed) ;;
    kill) signal ;;
    stop) signal; wait_for gone ;;
    start) touch "$dir/wanted"; wait_for running ;;
    restart) signal; wait_for gone; touch "$dir/wanted"; wait_for running ;;
    *) echo "systemctl of the lab: no verb $1" >&2; exit 1 ;;
    esac ;;
*)
    dir=$1
    shift
    while :; do
        wait_for [ -e "$dir/wanted" ]
        "$@" &
        echo $! >"$dir/pid"
        wait $!
        rm -f "$dir/pid"
    done ;;
esac
