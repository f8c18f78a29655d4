#!/bin/sh
# Run the program $1 for at most $2 seconds. Print "exit CODE" or "late", how many bytes it wrote,
# and the last $3 of them.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root
export PATH HOME
exec </dev/null
cd /
# A session of its own, so that all that it started can be ended.
alone=$(command -v setsid)
$alone "$1" >"$1.output" 2>&1 &
pid=$!
(
  sleep "$2"
  : >"$1.late"
  # Not with -- in between, which dash takes for a number.
  kill -KILL "-$pid" || kill -KILL "$pid"
) >/dev/null 2>&1 &
timer=$!
wait "$pid"
code=$?
kill "$timer" 2>/dev/null
if [ -e "$1.late" ]; then echo late; else echo "exit $code"; fi
wc -c <"$1.output"
tail -c "$3" "$1.output"
rm -rf "${1%/*}"
