# shellcheck shell=bash
# What the demo is made of besides its story: SQL helpers, expectations, and the load with its figures.
# Sourced by demo.sh, after lib.sh.

FAILURES=()
LOAD_PID=''

# --- SQL ----------------------------------------------------------------------------------------

sql() { psql -XqAt -v ON_ERROR_STOP=1 -c "$1"; }

# Plans have long statements: a line each is enough here.
indent() { sed -E 's/^(NOTICE: .{140}).+/\1…/; s/^/    /'; }

# show SQL …: what a person would type, and what comes back.
show() {
  local statement
  for statement in "$@"; do
    printf '    %spostgres=# %s;%s\n' "$DIM" "$statement" "$RESET"
    psql -Xq -v ON_ERROR_STOP=1 -P pager=off -P footer=off -P null=- -P expanded=auto -P columns=160 \
      -c "$statement" 2>&1 | indent || fail "$statement"
  done
}

# show_head N SQL: only the first lines of what comes back, and how many there are.
show_head() {
  local lines=$LOGS/show_head.out
  show "$2" >"$lines"
  head -n $(($1 + 1)) "$lines"
  (($(wc -l <"$lines") <= $1 + 1)) || note "… $(wc -l <"$lines" | awk '{ print $1 - 1 }') lines in all"
}

# show_plain SQL: the same for one value that has lines of its own.
show_plain() {
  printf '    %spostgres=# %s;%s\n' "$DIM" "$1" "$RESET"
  sql "$1" | indent || fail "$1"
}

# --- expectations -------------------------------------------------------------------------------

fail() {
  printf '    %sFAILED%s %s\n' "$RED" "$RESET" "$*"
  FAILURES+=("$*")
}

# expect WHAT GOT WANTED
expect() {
  if [[ $2 == "$3" ]]; then
    printf '    %sok%s %s: %s\n' "$GREEN" "$RESET" "$1" "$2"
  else
    fail "$1: $2, wanted $3"
  fi
}

# --- the load -----------------------------------------------------------------------------------

# Many small transactions on the legacy tables, each of one row, at a steady rate: a wait shows as
# latency, because pgbench counts from when a transaction was due.
start_load() {
  local kind weights=(insert:35 update:30 move:10 delete:8 upsert:12 undo:5)
  local -a scripts=() options=()
  for kind in "${weights[@]}"; do
    scripts+=(-f "$ROOT/demo/load/${kind%:*}.sql@${kind#*:}")
  done
  ((PG_MAJOR < 15)) || options+=(--max-tries=1)
  "$PG_BIN/pgbench" -n -c 4 -j 1 -R "$LOAD_RATE" -T 3600 -P 1 -l --log-prefix="$LOGS/transactions" \
    --random-seed=1 "${options[@]}" -D rows="$ROWS" -D orgs="$(sql 'SELECT max(id) FROM organizations')" \
    -D seconds="$(sql "SELECT extract(epoch FROM localtimestamp - min(occurred_at))::bigint FROM revenues")" \
    "${scripts[@]}" >"$LOGS/load.out" 2>"$LOGS/load.err" &
  LOAD_PID=$!
}

load_runs() { [[ -n $LOAD_PID ]] && kill -0 "$LOAD_PID" 2>/dev/null; }

# pgbench ends a timed run in order when its alarm rings; this rings it early.
stop_load() {
  local status=0
  if ! load_runs; then
    [[ -z $LOAD_PID ]] || fail 'the load stopped by itself'
  else
    kill -ALRM "$LOAD_PID"
  fi
  wait "$LOAD_PID" || status=$?
  LOAD_PID=''
  ((status == 0)) || fail "pgbench ended with status $status"
  grep -E 'ERROR|FATAL|PANIC|aborted' "$LOGS/load.err" | head -n 5 | indent || true
}

# The last second of the load, in few words.
load_now() {
  sed -n '$s/^progress: [^,]*, \([0-9]*\)[.0-9]* tps, lat \([0-9]*\.[0-9]\)[0-9]* ms.*/load \1 tps, \2 ms/p' "$LOGS/load.err"
}

load_transactions() { cat "$LOGS"/transactions.* | awk '$3 ~ /^[0-9]+$/' | wc -l; }

# Retryable errors that pgbench counted, and the ones that ended a client.
load_errors() {
  local counted ended
  counted=$(cat "$LOGS"/transactions.* | awk '$3 !~ /^[0-9]+$/' | wc -l)
  ended=$(grep -c 'client .* aborted' "$LOGS/load.err" || true)
  echo $((counted + ended))
}

# latencies FROM TO: "transactions p50 p99 max", times in ms.
latencies() {
  cat "$LOGS"/transactions.* |
    awk -v from="$1" -v to="$2" '$3 ~ /^[0-9]+$/ { at = $5 + $6 / 1e6; if (at >= from && at < to) print $3 / 1000 }' |
    sort -n |
    awk '{ v[NR] = $1 }
      function p(q) { return v[int((NR - 1) * q) + 1] }
      END { if (NR) printf "%d %.1f %.1f %.1f\n", NR, p(0.5), p(0.99), v[NR]; else print "0 - - -" }'
}
