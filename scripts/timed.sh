#!/usr/bin/env bash
# Runs a command and says how long it took, failed or not: scripts/timed.sh NAME COMMAND...
# The times since `scripts/timed.sh --begin` are listed by `scripts/timed.sh --list`.
. "$(dirname "$0")/setup/lib.sh"

times=$TOOLS/times
mkdir -p "$TOOLS"

case ${1:-} in
--begin)
    : >"$times"
    exit 0
    ;;
--list)
    printf 'time: %s\n' "how long each part took (those of a second or more)"
    awk -F '\t' '{ sum += $1; printf "  %5d s  %s\n", $1, $2 } END { printf "  %5d s  together\n", sum }' "$times"
    exit 0
    ;;
esac

name=$1
shift
begun=$SECONDS
status=0
"$@" || status=$?
took=$((SECONDS - begun))
# What was there already takes no time and no line.
if [ "$took" -gt 0 ] || [ "$status" != 0 ]; then
    printf '%d\t%s\n' "$took" "$name" >>"$times"
    printf 'time: %s\n' "$name: $took s$([ "$status" = 0 ] || echo " (failed)")"
fi
exit "$status"
