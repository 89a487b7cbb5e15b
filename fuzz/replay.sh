#!/usr/bin/env bash
# Replays the seed corpora with plain mains, one target on each processor, and checks that each input of corpus-bugs
# aborts its target: replay.sh FOLDER TARGET...
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
folder=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

replay() { # replay TARGET: fails if anything is other than it must be
  local target=$1 status=0 output file
  if [[ -d fuzz/corpus/$target ]]; then
    if output=$("$folder/$target" "fuzz/corpus/$target" --seed 1 --iterations "${REPLAY_RANDOM:-200}" 2>&1); then
      printf '  %-16s %s\n' "$target" "$output"
    elif [[ $target == protocol_bug ]]; then  # random input may find it, too
      printf '  %-16s found its bug\n' "$target"
    else
      printf '  %-16s FAILED\n%s\n' "$target" "$output"
      status=1
    fi
  fi
  for file in "fuzz/corpus-bugs/$target"/*; do
    [[ -f $file ]] || continue
    output=$("$folder/$target" "$file" 2>&1)
    if [[ $? == 134 && $output == *"does not hold"* ]]; then
      printf '  %-16s aborts at %s, as it must\n' "$target" "${file##*/}"
    else
      printf '  %-16s does not find %s\n%s\n' "$target" "${file##*/}" "$output"
      status=1
    fi
  done
  return $status
}

for target in "$@"; do
  { replay "$target" || touch "$work/failed"; } >"$work/$target" &
  while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
done
wait
for target in "$@"; do cat "$work/$target"; done
# For docs/proved.md.
inputs=$(for target in "$@"; do find "fuzz/corpus/$target" "fuzz/corpus-bugs/$target" -type f 2>/dev/null; done | wc -l)
printf 'record: {"fuzz_targets": %d, "inputs": %d, "random_inputs": %d}\n' $# "$inputs" $((${REPLAY_RANDOM:-200} * $#))
[[ ! -e $work/failed ]]
