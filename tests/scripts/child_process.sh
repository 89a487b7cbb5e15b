#!/usr/bin/env bash
# Child processes: what they print, how they end, input that they do not read, more of each than a pipe holds, a
# child that is killed when its time is over. No descriptor and no process is left.
source "$(dirname "$0")/lib.bash"
need "$python"

program=$examples/child_process
"$program" --help | grep -q '^usage: child_process'
for wrong in '' '--input x' '--timeout 0 true' '--timeout x true' '--times true' '--what x true'; do
  status=0
  # shellcheck disable=SC2086
  "$program" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done

# ends STATUS WORDS…: the program ends with the status; its output is in $work/out, its errors in $work/said.
ends() {
  local expected=$1 status=0
  shift
  "$program" "$@" >"$work/out" 2>"$work/said" </dev/null || status=$?
  ((status == expected)) || fail "$*: exit status $status, not $expected: $(head -c 500 "$work/said")"
}

ends 3 sh -c 'echo printed; echo complained >&2; exit 3'
expect "$work/out" 'printed\n'
expect "$work/said" 'complained\nchild_process: exit status 3\n'
ends 0 --input 'a line' cat
expect "$work/out" 'a line\n'
ends 0 --input ignored true
ends 137 sh -c 'kill -9 $$'
grep -q 'killed by signal 9' "$work/said" || fail "killed: $(cat "$work/said")"
ends 143 sh -c 'kill $$'
ends 1 "$work/nothing"
grep -q 'ENOENT' "$work/said" || fail "no program: $(cat "$work/said")"

# More than pipes hold, into the child and out of both streams at once.
ends 0 sh -c 'head -c 20000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait'
(($(wc -c <"$work/out") == 20000000 && $(wc -c <"$work/said") > 3000000)) || fail "output was lost"
input=$(head -c 100000 /dev/zero | tr '\0' x)
ends 0 --input "$input" tee /dev/stderr
(($(wc -c <"$work/out") == 100001 && $(wc -c <"$work/said") > 100001)) || fail "input was lost"

# A child whose time is over: it has ended before the program does.
ends 137 --timeout 1 sh -c 'echo $$; exec sleep 1000'
grep -q 'time is up' "$work/said" || fail "timeout: $(cat "$work/said")"
! kill -0 "$(cat "$work/out")" 2>/dev/null || fail "the child lives on"

# The child has its three streams, and what this script inherited; the parent keeps nothing of one that has ended.
sh -c 'ls /proc/$$/fd' </dev/null >"$work/without" 2>/dev/null
ends 0 sh -c 'ls /proc/$$/fd'
same "$work/without" "$work/out"
ends 0 --times 50 sh -c 'cat; ls /proc/$PPID/fd | tr "\n" " "; echo'
(($(wc -l <"$work/out") == 50 && $(sort -u "$work/out" | wc -l) == 1)) || fail "descriptors: $(sort "$work/out" | uniq -c)"
ends 0 --times 20 sh -c 'cat /proc/$PPID/task/$PPID/children; echo' # itself, and no child before it
! grep -q '[0-9] [0-9]' "$work/out" || fail "children are left: $(cat "$work/out")"

# A parent whose own streams are closed.
"$program" --input 'a line' sh -c "cat >$work/saved" <&- >&- 2>&-
expect "$work/saved" 'a line\n'
