# shellcheck shell=bash
# The demo's second half: reads go to the twin and back, and maintenance runs. Sourced by demo.sh.

readonly ON='SET partition_router.use_partitioned_tables = on'
readonly KILL='SET partition_router.enable_partition_routing = off'

# route_under SETTINGS [TENANT]: the table that reads of revenues use.
route_under() { sql "$1; SELECT partition_router.route('revenues', nullif('${2:-}', ''))"; }

# explain_under SETTINGS [TENANT]: "table: reason".
explain_under() {
  sql "$1; SELECT target || ': ' || reason FROM partition_router.explain_route('revenues', nullif('${2:-}', ''))"
}

# --- the switch ---------------------------------------------------------------------------------

switch() {
  say 'reads: to the twin and back, by one setting'
  expect 'at the defaults' "$(route_under '')" revenues
  note "$(explain_under '')"
  expect "$ON" "$(route_under "$ON")" revenues_partitioned
  note "$(explain_under "$ON")"
  expect "the same, and $KILL" "$(route_under "$ON; $KILL")" revenues
  note "$(explain_under "$ON; $KILL")"
}

# A month's report on the side that route names: one partition of the twin, and the legacy's figures.
report() {
  local month from side report
  month=$(sql "SELECT to_char(now() - interval '5 months', 'YYYY-MM')")
  from="date '$month-01'"
  report="SELECT category, count(*), sum(amount_cents) FROM %s
          WHERE occurred_at >= $from AND occurred_at < $from + interval '1 month' GROUP BY category ORDER BY category"
  side=$(route_under "$ON")
  say "the report of $month reads one partition of $side"
  # shellcheck disable=SC2059 # the report is the format
  show "EXPLAIN (COSTS OFF) $(printf "$report" "$side" | tr -s ' \n' ' ')" | tee "$LOGS/report.plan"
  expect 'partitions in the plan' "$(grep -oE 'on revenues_[0-9a-z_]+' "$LOGS/report.plan" | sort -u | sed 's/^on //' |
    paste -sd ' ')" "revenues_${month/-/_}"
  # shellcheck disable=SC2059 # the report is the format
  expect 'lines that differ between the sides, in one snapshot' "$(sql "
    WITH a AS ($(printf "$report" revenues)), b AS ($(printf "$report" "$side"))
    SELECT count(*) FROM ((TABLE a EXCEPT TABLE b) UNION ALL (TABLE b EXCEPT TABLE a)) d")" 0
}

# --- tenant by tenant ---------------------------------------------------------------------------

# The organizations that read the twin with every setting at its default, one a line.
rolled_out() {
  sql "SELECT id FROM organizations
       WHERE id <= 1000 AND partition_router.route('revenues', id::text) = 'revenues_partitioned'::regclass"
}

# at_percent N: raises or lowers the share, and counts the tenants that went back to the legacy.
at_percent() {
  local before=$LOGS/tenants.before after=$LOGS/tenants.after
  sql "SELECT partition_router.set_rollout('revenues', percent => $1)" >/dev/null
  rolled_out | sort >"$after"
  WENT=$(comm -23 "$before" "$after" | wc -l)
  note "percent => $1: $(wc -l <"$after") of $TENANTS tenants read the twin"
  mv "$after" "$before"
}

rollout() {
  say 'reads: tenant by tenant, every setting at its default'
  show "SELECT partition_router.set_rollout('revenues', percent => 0, pilots => '{42}', excluded => '{7}')"
  expect 'pilot 42' "$(route_under '' 42)" revenues_partitioned
  note "$(explain_under '' 42)"
  expect 'tenant 43' "$(route_under '' 43)" revenues
  note "$(explain_under '' 43)"
  local percent
  TENANTS=$(sql 'SELECT count(*) FROM organizations WHERE id <= 1000')
  : >"$LOGS/tenants.before"
  for percent in 0 10 50 100; do
    at_percent "$percent"
    expect "raised to $percent, tenants that went back to the legacy" "$WENT" 0
  done
  expect 'tenant 7, excluded, at 100' "$(route_under '' 7)" revenues
  at_percent 0
  expect 'lowered to 0, tenants that left but the pilot' "$WENT" $((TENANTS - 2))
}

route_reads() {
  switch
  report
  rollout
}

# --- maintenance --------------------------------------------------------------------------------

# How many rows a partition of revenues holds, or - when there is none of that name.
rows_in() {
  if [[ $(sql "SELECT to_regclass('$1') IS NULL") == t ]]; then echo -; else sql "SELECT count(*) FROM $1"; fi
}

maintain() {
  local month
  month=$(sql "SELECT to_char(now() + interval '6 months', 'YYYY_MM')")
  say 'maintenance: a booking for in half a year has no partition yet'
  show "INSERT INTO revenues (org_id, amount_cents, occurred_at, description)
                VALUES (42, 90000, to_date('$month', 'YYYY_MM') + time '12:00', 'summer party')"
  expect 'rows in revenues_default' "$(rows_in revenues_default)" 1
  show "SELECT partition_router.set_policy('revenues', premake => 4, retention => '24 months')"
  show_head 6 'CALL partition_router.run_maintenance(dry_run => true)'
  show 'CALL partition_router.run_maintenance()' \
    'SELECT parent, partition, action, status, row_count, message FROM partition_router.maintenance_log ORDER BY id'
  expect "rows in revenues_$month" "$(rows_in "revenues_$month")" 1
  expect 'rows in revenues_default' "$(rows_in revenues_default)" 0
  expect 'the partition four months ahead is there' \
    "$(sql "SELECT to_regclass(to_char(now() + interval '4 months', '\"revenues_\"YYYY_MM')) IS NOT NULL")" t
}
