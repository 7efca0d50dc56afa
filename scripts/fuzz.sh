#!/usr/bin/env bash
# Lets libFuzzer look for inputs that break a decoder; as root, because layers are unpacked as root.
#
#   fuzz.sh                 every decoder, HOODY_FUZZ_SECONDS (60) each
#   fuzz.sh frame layer     these
#
# What it finds new is kept below .dev/fuzz, one folder per decoder, and used again by the next run. An input
# that breaks a decoder is named in the output: put it into fuzz/corpus/<decoder>/, where `make test` replays it.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
seconds=${HOODY_FUZZ_SECONDS:-60}
found=$root/.dev/fuzz

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: building cargo-fuzz, once"
    cargo install --locked cargo-fuzz
fi
# libFuzzer needs compiler options that only a nightly compiler, or this, allows. Nothing here is unsafe
# code of ours worth a sanitizer, and without one it is twice as fast.
export RUSTC_BOOTSTRAP=1
unset CARGO_TARGET_DIR
# The same versions of everything as in the product.
cp Cargo.lock fuzz/libfuzzer/Cargo.lock
cargo fuzz build --fuzz-dir fuzz/libfuzzer --sanitizer none decoders
program=$(find fuzz/libfuzzer/target -path '*/release/decoders' -type f | head -n 1)
[ -n "$program" ] || { echo "fuzz: the program was not built" >&2; exit 1; }

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/corpus)
broken=()
for target in "${targets[@]}"; do
    mkdir -p "$found/$target" "$found/broken"
    log=$found/$target.log
    status=0
    HOODY_FUZZ_TARGET=$target "$program" "$found/$target" "fuzz/corpus/$target" \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$found/broken/$target-" >"$log" 2>&1 || status=$?
    runs=$(awk '/number_of_executed_units/ { print $2 }' "$log")
    if [ "$status" -ne 0 ]; then
        broken+=("$target")
        echo "fuzz: $target BROKEN, see $log"
        tail -n 25 "$log"
    else
        echo "fuzz: $target ${runs:-?} inputs, $(find "$found/$target" -type f | wc -l) kept"
    fi
done
[ ${#broken[@]} -eq 0 ] || { echo "fuzz: broken: ${broken[*]}" >&2; exit 1; }
