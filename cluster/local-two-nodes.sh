#!/usr/bin/env bash
# A Ray cluster of two nodes on this machine, to try `adaptune run --address` and `adaptune submit` before a real one.
#
#   cluster/local-two-nodes.sh start    start a head with its dashboard and one more node; print how to reach them
#   cluster/local-two-nodes.sh stop     end what start started, and nothing else
#
# NODE_CPUS  CPUs each node offers (default 1)
# STATE      folder for logs and process ids (default /tmp/adaptune-two-nodes-UID; short, as Ray's sockets live in it)
# RAY        the ray command (default the one of this checkout's .venv)
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
ray="${RAY:-$here/.venv/bin/ray}"
state="${STATE:-/tmp/adaptune-two-nodes-$UID}"
node_cpus="${NODE_CPUS:-1}"
# Whoever may speak to a Ray can run code as you: this one listens on loopback alone and wants a token, made at each start.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/token"
unset RAY_AUTH_TOKEN

fail() {
    echo "local-two-nodes: $*" >&2
    exit 1
}

free_ports() { # free_ports N: N ports nobody listens on, held open together so that none comes twice
    "$(dirname "$ray")/python" - "$1" <<'PYTHON'
import socket, sys

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in sockets))
PYTHON
}

is_ours() { # is_ours PID: the process lives and is one this script started, not a later owner of its number
    ps -ww -o command= -p "$1" 2>/dev/null | grep -qF -- "--temp-dir=$state/"
}

# `ray start` looks for an outside address even where it is given a loopback one, and Ray listens everywhere then.
ray_on_loopback='
import sys
from ray._private import services
services.get_node_ip_address = lambda address=None: "127.0.0.1"
from ray.scripts.scripts import main
sys.argv[0] = "ray"
main()
'

launch() { # launch NAME ARGUMENTS...: one node, as a process group whose leader ends the rest of it when it ends
    local name="$1"
    shift
    set -m
    # Jobs find `python` and `adaptune` on the PATH of the node they run on.
    PATH="$(dirname "$ray"):$PATH" "$(dirname "$ray")/python" -c "$ray_on_loopback" start --block --disable-usage-stats --temp-dir="$state/$name" \
        --node-ip-address=127.0.0.1 --num-cpus="$node_cpus" --object-store-memory=200000000 "$@" \
        >"$state/$name.log" 2>&1 </dev/null &
    set +m
    echo $! >"$state/$name.pid"
}

await() { # await NAME COMMAND...: until the command succeeds, for at most three minutes and while the node lives
    local name="$1" begun="$SECONDS" deadline=$((SECONDS + 180))
    shift
    until "$@" >/dev/null 2>&1; do
        # A node that has only just been forked still has this script's name.
        if ((SECONDS > begun + 5)) && ! is_ours "$(<"$state/$name.pid")" || ((SECONDS > deadline)); then
            tail -n 20 "$state/$name.log" >&2
            stop
            fail "the $name did not come up; the end of its log stands above"
        fi
        sleep 0.5
    done
}

start() {
    [[ -x $ray ]] || fail "no ray at $ray; run make venv first, or set RAY"
    [[ ! -e $state ]] || fail "$state exists; run '$0 stop' first, or set STATE"
    mkdir -m 700 "$state"
    (umask 077 && "$(dirname "$ray")/python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$state/token")
    local gcs dashboard client head_agent worker_agent
    read -r gcs dashboard client head_agent worker_agent < <(free_ports 5)

    # Two nodes share one machine here, so every port that Ray fixes by default is given to each.
    launch head --head --port="$gcs" --ray-client-server-port="$client" --include-dashboard=true \
        --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" --dashboard-agent-listen-port="$head_agent"
    await head "$ray" job list --address "http://127.0.0.1:$dashboard"
    launch worker --address="127.0.0.1:$gcs" --dashboard-agent-listen-port="$worker_agent"
    await worker grep -q "Ray runtime started" "$state/worker.log"

    echo "first run:   export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token"
    echo "ray address: 127.0.0.1:$gcs          for adaptune run SWEEP --address 127.0.0.1:$gcs"
    echo "job address: http://127.0.0.1:$dashboard   for adaptune submit SWEEP --address http://127.0.0.1:$dashboard"
    echo "stop with:   $0 stop"
}

stop() {
    [[ -d $state ]] || fail "nothing to stop: no $state"
    local name pid
    for name in worker head; do
        [[ -f $state/$name.pid ]] || continue
        pid="$(<"$state/$name.pid")"
        is_ours "$pid" || continue
        kill -TERM "$pid" # `ray start --block` takes its own processes with it
        for _ in $(seq 60); do
            is_ours "$pid" || break
            sleep 0.5
        done
        ! is_ours "$pid" || kill -KILL -- "-$pid"
    done
    rm -rf "$state"
}

case "${1:-}" in
    start | stop) "$1" ;;
    *) fail "usage: $0 start|stop" ;;
esac
