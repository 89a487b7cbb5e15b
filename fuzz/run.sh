#!/usr/bin/env bash
# Runs libFuzzer targets one after another: run.sh FOLDER SECONDS TARGET...
#
# New inputs go into FOLDER/corpus, crashing ones into FOLDER/crashes. Prints one line for each target,
# with executions per second. protocol_bug must crash, all others must not.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
folder=$1 seconds=$2
shift 2

status=0
mkdir -p "$folder"
: >"$folder/record"
for target in "$@"; do
  mkdir -p "$folder/corpus/$target" "$folder/crashes"
  options=(-max_total_time="$seconds" -max_len=1024 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -entropic=0
    -artifact_prefix="$folder/crashes/$target-")
  if [[ -f fuzz/$target.dict ]]; then options+=(-dict="fuzz/$target.dict"); fi
  folders=("$folder/corpus/$target")
  if [[ -d fuzz/corpus/$target ]]; then folders+=("fuzz/corpus/$target"); fi
  log=$folder/$target.log
  "$folder/$target" "${options[@]}" "${folders[@]}" >"$log" 2>&1
  failed=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  printf 'record: {"fuzz_target": "%s", "runs": %d, "seconds": %d}\n' "$target" "${runs:-0}" "$seconds" >>"$folder/record"
  printf '  %-16s %9s runs %7s exec/s' "$target" "${runs:-?}" "${rate:-?}"
  if [[ $target == protocol_bug ]]; then
    if ((failed)); then
      echo "  found its bug"
    else
      echo "  did not find its bug within $seconds seconds"
      if ((seconds >= 60)); then status=1; fi
    fi
  elif ((failed)); then
    status=1
    echo "  FAILED: $(grep -aoE "$folder/crashes/$target-[^ ]*" "$log" | tail -1)"
    tail -n 60 "$log"
  else
    echo
  fi
done
# For docs/proved.md.
if ((status == 0)); then
  python3 tools/make/run_tests.py --record build/record/fuzz.json --check libFuzzer "cat '$folder/record'" >/dev/null
fi
exit $status
