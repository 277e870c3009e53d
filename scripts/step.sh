# Sourced by scripts/bootstrap and scripts/build: messages, and long commands that show they are alive.
#
# The caller sets `me` (its name in messages) and `log` (a file), and defines `doing`, which prints what the command is at.

say() { printf '%s: %s\n' "$me" "$*"; }
die() { printf "$me: %s\n" "$@" >&2; exit 1; }

# step TITLE COMMAND...: output goes to the log; every 15 s a line says how long it has run. Failure shows the log's end.
step() {
    local title=$1 pid start=$SECONDS next=15 at; shift
    printf '\n== %s\n' "$title" >>"$log"
    say "$title ..."
    # In a process group of its own, so that an interruption ends its children too.
    set -m
    "$@" >>"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    trap 'kill -- -$pid || true; wait $pid || true; die "interrupted"' INT TERM
    while kill -0 $pid 2>/dev/null; do
        sleep 0.2
        if [ $((SECONDS - start)) -ge $next ]; then
            next=$((next + 15))
            at=$(doing || true)
            say "  $((SECONDS - start)) s${at:+, $at}"
        fi
    done
    trap - INT TERM
    if ! wait $pid; then
        grep -vE '^WARNING: Location .* is ignored' "$log" | tail -n 40 >&2
        die "failed: $title (whole output: $log)"
    fi
    say "  done in $((SECONDS - start)) s"
}
