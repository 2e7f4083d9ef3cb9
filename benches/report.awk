# Medians, least, most, ratios and what sync adds, of lines "group, work, variant, value"; then the requirements.
# The n-th value of each variant of a work was measured in the same round: added times are medians of such differences.
# Variable: copied, the rows of the backfill.
BEGIN {
    way["forward"] = "into the legacy"
    way["reverse"] = "into the twin"
    title["insert_one"] = "one-row INSERT "
    title["update_one"] = "one-row UPDATE "
    title["delete_one"] = "one-row DELETE "
    title["insert_bulk"] = "INSERT … SELECT "
    title["copy_bulk"] = "COPY "
    title["update_bulk"] = "UPDATE of many rows "
    title["delete_bulk"] = "DELETE of many rows "
    title["backfill"] = "the copy"
    title["plain"] = "the proof"
    title["wide"] = "the proof with numeric, jsonb and toasted text"
    title["unchanged"] = "the proof again"
    title["few"] = "ten rows that differ"
    title["partman"] = "moving rows with pg_partman, rows a second"
    title["workers"] = "the backfill by workers"
    title["loaded"] = "the backfill beside these writers"
    title["p99"] = "99th percentile of a writer's transaction"
    title["turn"] = "the same with the wait for its turn at a set rate"
    title["flip"] = "longest transaction of a writer around the flip"
    title["memory"] = "private memory at the peak, above what it was before"
    title["select_one_prepared"] = "pgbench -S -M prepared, a table with no pair"
    title["select_one_simple"] = "pgbench -S -M simple, a table with no pair"
    title["point_one_prepared"] = "point read of a pair, prepared"
    title["point_one_simple"] = "point read of a pair, simple"
    title["call"] = "a call of route()"
    title["month"] = "a report of a month, of 24"
    title["idle"] = "run_maintenance with nothing to do"
    title["idle_of_4"] = "run_maintenance with nothing to do, a quarter of the tables"
    title["idle_of_2"] = "run_maintenance with nothing to do, half of the tables"
    title["create3"] = "creating 3 partitions on each table"
    title["drain"] = "draining a default partition"
    title["archive"] = "archiving a partition, until the file is on disk"
    title["look"] = "looking at many pairs"
    title["page"] = "the page of report()"
    way["observe"] = ""
    label["health"] = "the view health"
    label["metrics"] = "metrics()"
    label["openmetrics"] = "openmetrics()"
    label["report"] = "report()"
    way["maintenance"] = ""
    label["partman"] = "pg_partman"
    label["copy"] = "COPY to a file"
    label["csv"] = "CSV with gzip"
    label["parquet"] = "Parquet"
    label["csv_whole"] = "CSV, until it is read back, equal, and the partition dropped"
    label["parquet_whole"] = "Parquet, the same"
    way["route"] = ""
    way["pairs"] = ", beside other pairs"
    label["unloaded"] = "library not loaded"
    label["loaded"] = "loaded"
    label["transparent"] = "loaded, transparent routing on"
    label["hand"] = "written against the twin"
    label["routed"] = "routed"
    label["legacy"] = "on the legacy"
    label["empty"] = "an empty function of its shape"
    label["route"] = "route(relation)"
    label["tenant"] = "route(relation, tenant)"
    label["few"] = "1 pair"
    label["many"] = "1,000 pairs more"
    label["none"] = "no sync"
    label["live"] = "partition_router, live"
    label["capture"] = "partition_router, during the copy"
    label["cte"] = "one statement that writes both (CTE)"
    label["statement"] = "PL/pgSQL statement trigger"
    label["row"] = "PL/pgSQL row trigger"
    label["nothing"] = "statement triggers that do nothing"
    label["floor"] = "C row trigger that only writes (a floor)"
    label["indexed"] = "INSERT … SELECT, indexes in place"
    label["bare"] = "INSERT … SELECT, then the indexes"
    label["ours"] = "partition_router"
    label["whole"] = "the same, and ANALYZE of the twin"
    label["count"] = "count(*) on both sides, one process"
    label["parallel"] = "count(*) on both sides, parallel"
    label["hash"] = "sum(hash_record_extended) on both"
    label["detoast"] = "reading the large values of both"
    label["unchanged"] = "1 partition of 24 was written since"
    label["mismatches"] = "mismatches, after the proof failed"
    label["verify_small"] = "verify"
    label["mismatches_small"] = "mismatches"
    label["repair_small"] = "repair"
    label["verify_large"] = "verify, 5 times the rows"
    label["mismatches_large"] = "mismatches, 5 times the rows"
    label["repair_large"] = "repair, 5 times the rows"
    label["counts"] = "partition_router, level counts"
    label["partition_data_time"] = "partition_data_time"
    label["one"] = "1 worker"
    label["two"] = "2 workers"
    label["before"] = "before"
    label["during"] = "during the backfill"
    label["longest"] = "longest"
    label["insert_small"] = "live INSERT … SELECT"
    label["update_small"] = "live UPDATE"
    label["backfill_small"] = "backfill"
    label["insert_large"] = "live INSERT … SELECT, 5 times the rows"
    label["update_large"] = "live UPDATE, 5 times the rows"
    label["backfill_large"] = "backfill, 5 times the rows"
}
{
    group = $1 SUBSEP $2
    key = group SUBSEP $3
    if (!(group in variants)) groups[++group_count] = group
    if (!(key in seen)) variants[group] = variants[group] " " $3
    seen[key]++
    value[key, seen[key]] = $4 + 0
}

# Fills sorted[1 … n] and gives the median; least and most are left in these names.
function middle(n,    i, j, t) {
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && sorted[j] < sorted[j - 1]; j--) { t = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = t }
    least = sorted[1]
    most = sorted[n]
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}
function median(key,    i) {
    for (i = 1; i <= seen[key]; i++) sorted[i] = value[key, i]
    return middle(seen[key])
}
# What a variant takes more than no sync, in the same rounds.
function added(group, variant,    i, n, key, base) {
    key = group SUBSEP variant
    base = group SUBSEP "none"
    n = seen[key] < seen[base] ? seen[key] : seen[base]
    for (i = 1; i <= n; i++) sorted[i] = value[key, i] - value[base, i]
    return n ? middle(n) : 0
}
function unit_of(work) {
    return work == "call" ? "ns" : work ~ /_one/ ? "us" : work ~ /^(memory|page)$/ ? "kB" : work == "partman" ? "rows" : "ms"
}
function shown(x, unit) {
    if (unit == "ns") return sprintf("%.0f ns", x)
    if (unit == "us") return sprintf("%.1f µs", x)
    if (unit == "kB") return sprintf("%.1f MB", x / 1024)
    if (unit == "rows") return sprintf("%d/s", x)
    return x >= 1000 || x <= -1000 ? sprintf("%.2f s", x / 1000) : x >= 10 || x <= -10 ? sprintf("%.0f ms", x) : sprintf("%.2f ms", x)
}
# Padded to a width in characters: printf counts bytes (LC_ALL=C), and UTF-8 has more of them.
function padded(text, width,    rest) {
    rest = text
    width += gsub(/[\200-\277]/, "", rest)
    return sprintf("%-" width "s", text)
}
function is_there(group, work, variant) { return ((group SUBSEP work SUBSEP variant) in seen) }

function print_group(group,    part, names, n, i, m, base, u, extra) {
    split(group, part, SUBSEP)
    printf "%s%s\n", (part[2] in title ? title[part[2]] : part[2]), (part[1] in way ? way[part[1]] : "")
    n = split(variants[group], names, " ")
    if ((group SUBSEP "none") in seen) base = median(group SUBSEP "none")
    else base = median(group SUBSEP names[1])
    u = unit_of(part[2])
    for (i = 1; i <= n; i++) {
        m = median(group SUBSEP names[i])
        extra = padded(shown(least, u) " – " shown(most, u), 24)
        if (base > 0) extra = extra sprintf(" %6.2f×", m / base)
        if (((group SUBSEP "none") in seen) && names[i] != "none") {
            extra = extra sprintf("  adds %s", shown(added(group, names[i]), u))
            extra = extra sprintf(" (%s – %s)", shown(least, u), shown(most, u))
        }
        if (part[2] == "backfill") extra = extra sprintf("  %d rows/s", copied / m * 1000)
        printf "  %s %s %s\n", padded(names[i] in label ? label[names[i]] : names[i], 38), padded(shown(m, u), 10), extra
    }
    if (((group SUBSEP "live") in seen) && ((group SUBSEP "row") in seen)) {
        m = median(group SUBSEP "live")
        extra = ((group SUBSEP "cte") in seen) ? sprintf("%.2f× the CTE, ", m / median(group SUBSEP "cte")) : ""
        printf "  live in total: %s%.2f× the row trigger\n", extra, m / median(group SUBSEP "row")
        if ((group SUBSEP "floor") in seen) printf "  live adds %s more than the floor\n", shown(added(group, "live") - added(group, "floor"), u)
    }
    print ""
}

# sign is "≤" or "≥". A figure that was not measured is said to be so; beside is what to see it beside.
function requirement(text, sign, limit, figure, format, measured, beside,    verdict) {
    if (!measured) { printf "  %s %s %s %9s  not measured\n", padded(text, 74), sign, padded(sprintf(format, limit), 7), "-"; return }
    verdict = (sign == "≤" ? figure <= limit : figure >= limit) ? "met" : "missed"
    counted[verdict]++
    printf "  %s %s %s %9s  %s%s\n", padded(text, 74), sign, padded(sprintf(format, limit), 7), sprintf(format, figure), verdict, beside
}
function ratio_of_added(w, work, a, b, limit, text,    group, x, y, measured, beside) {
    group = w SUBSEP work
    measured = is_there(w, work, a) && is_there(w, work, b)
    if (measured) { x = added(group, a); y = added(group, b) }
    if (measured && a == "live" && is_there(w, work, "floor")) beside = sprintf(", the floor %.2f×", added(group, "floor") / y)
    requirement(title[work] way[w] text, "≤", limit, y > 0 ? x / y : (x <= 0 ? 0 : 99), "%.2f×", measured, beside)
}
# Beside the total of a dual write stands what the server takes for the two statements, each alone on its table.
function ratio_of_totals(w, work, a, other, b, limit, text,    measured, y, beside) {
    measured = is_there(w, work, a) && is_there(w, other, b)
    if (measured) { y = median(w SUBSEP other SUBSEP b) }
    if (measured && is_there("forward", work, "none") && is_there("reverse", work, "none"))
        beside = sprintf(", both written alone %.2f×", (median("forward" SUBSEP work SUBSEP "none") + median("reverse" SUBSEP work SUBSEP "none")) / y)
    requirement(title[work] way[w] text, "≤", limit, measured ? median(w SUBSEP work SUBSEP a) / y : 0, "%.2f×", measured, beside)
}
function times(text, limit, sign, top, bottom,    measured) {
    measured = (top in seen) && (bottom in seen)
    requirement(text, sign, limit, measured ? median(top) / median(bottom) : 0, "%.2f×", measured)
}
# The share of the transactions that is left: the median of the ratios of times in the same rounds.
function share(group, work, top, bottom, limit, text,    w, i, n, figure) {
    w = group SUBSEP work SUBSEP
    n = seen[w top] < seen[w bottom] ? seen[w top] : seen[w bottom]
    for (i = 1; i <= n; i++) sorted[i] = value[w top, i] / value[w bottom, i]
    figure = n ? middle(n) : 0
    requirement(text, "≥", limit, figure, "%.3f×", n > 0)
}
# Nanoseconds of a call over those of the empty function, in the same rounds.
function over_empty(group, variant, limit, text,    w, i, n, figure) {
    w = group SUBSEP "call" SUBSEP
    n = seen[w variant] < seen[w "empty"] ? seen[w variant] : seen[w "empty"]
    for (i = 1; i <= n; i++) sorted[i] = value[w variant, i] - value[w "empty", i]
    figure = n ? middle(n) : 0
    requirement(text, "≤", limit, figure, "%.0f", n > 0)
}
function print_requirements(    w, ways, i, j, works, n, m, calls) {
    print "requirements                                                                  limit     figure"
    split("forward reverse", ways, " ")
    n = split("insert_one update_one delete_one", works, " ")
    for (i = 1; i <= 2; i++) for (j = 1; j <= n; j++) {
        ratio_of_added(ways[i], works[j], "live", "cte", 1.0, ": added, to CTE")
        ratio_of_added(ways[i], works[j], "live", "row", 0.5, ": added, to row trigger")
    }
    for (i = 1; i <= 2; i++) {
        ratio_of_totals(ways[i], "insert_bulk", "live", "insert_bulk", "cte", 1.05, ": total, to CTE")
        ratio_of_totals(ways[i], "insert_bulk", "live", "insert_bulk", "row", 0.5, ": total, to row trigger")
        ratio_of_totals(ways[i], "copy_bulk", "live", "insert_bulk", "cte", 1.05, ": total, to CTE of INSERT")
        ratio_of_totals(ways[i], "copy_bulk", "live", "copy_bulk", "row", 0.5, ": total, to row trigger")
        ratio_of_totals(ways[i], "update_bulk", "live", "update_bulk", "row", 0.5, ": total, to row trigger")
        ratio_of_totals(ways[i], "delete_bulk", "live", "delete_bulk", "row", 0.5, ": total, to row trigger")
    }
    works[++n] = "insert_bulk"
    for (j = 1; j <= n; j++) ratio_of_added("forward", works[j], "capture", "live", 0.5, ": added by capture, to live")
    w = "copy" SUBSEP "backfill" SUBSEP
    times("backfill: time, to INSERT … SELECT and then the indexes", 1.0, "≤", w "ours", w "bare")
    times("backfill: times faster than INSERT … SELECT with indexes in place", 3.5, "≥", w "indexed", w "ours")
    w = "copy" SUBSEP "partman" SUBSEP
    times("backfill: times the rows a second of pg_partman's partition_data_time", 10, "≥", w "ours", w "partition_data_time")
    w = "copy" SUBSEP "workers" SUBSEP
    times("backfill: times faster with 2 workers than with 1", 1.6, "≥", w "one", w "two")
    w = "load" SUBSEP "p99" SUBSEP
    times("p99 of writers during the backfill, to before", 2, "≤", w "during", w "before")
    w = "load" SUBSEP "flip" SUBSEP "longest"
    requirement("longest transaction of a writer around the flip, ms", "≤", 100, (w in seen) ? median(w) : 0, "%.0f", w in seen)
    n = split("insert update backfill", works, " ")
    for (j = 1; j <= n; j++) {
        w = "memory" SUBSEP "memory" SUBSEP works[j] "_"
        requirement("memory of " (works[j] == "backfill" ? "a " : "a live ") works[j] ", MB more with 5 times the rows", "≤", 4,
            ((w "large") in seen) ? (median(w "large") - median(w "small")) / 1024 : 0, "%.1f", (w "large") in seen)
    }
    w = "parity" SUBSEP "plain" SUBSEP
    times("checksum: time, to count(*) on both sides, one process", 1.25, "≤", w "ours", w "count")
    times("checksum: times faster than sum(hash_record_extended) on both", 8, "≥", w "hash", w "ours")
    w = "parity" SUBSEP "wide" SUBSEP
    if ((w "detoast") in seen) n = median(w "detoast") - median(w "count")
    requirement("checksum of large values: time, detoasting aside, to count(*)", "≤", 4,
        ((w "ours") in seen) ? (median(w "ours") - (n > 0 ? n : 0)) / median(w "count") : 0, "%.2f×", (w "ours") in seen)
    w = "parity" SUBSEP "workers" SUBSEP
    times("checksum: times faster with 2 workers than with 1", 1.6, "≥", w "one", w "two")
    w = "parity" SUBSEP "few" SUBSEP
    times("mismatches of 10 differences: time, to the proof that failed", 0.10, "≤", w "mismatches", w "ours")
    w = "parity" SUBSEP "unchanged" SUBSEP
    times("checksum with 1 of 24 partitions written since: time, to a full one", 0.15, "≤", w "unchanged", w "ours")
    n = split("verify mismatches repair", works, " ")
    for (j = 1; j <= n; j++) {
        w = "parity" SUBSEP "memory" SUBSEP works[j] "_"
        requirement("memory of " works[j] ", MB more with 5 times the rows", "≤", 4,
            ((w "large") in seen) ? (median(w "large") - median(w "small")) / 1024 : 0, "%.1f", (w "large") in seen)
    }
    n = split("prepared simple", works, " ")
    for (j = 1; j <= n; j++) {
        share("route", "select_one_" works[j], "unloaded", "loaded", 0.99, "pgbench -S -M " works[j] ", no pair: library loaded, to not loaded")
        share("route", "select_one_" works[j], "unloaded", "transparent", 0.99, "pgbench -S -M " works[j] ", no pair: transparent on, to not loaded")
    }
    for (j = 1; j <= n; j++) share("route", "point_one_" works[j], "hand", "routed", 0.97, "point read, " works[j] ": routed, to written against the twin")
    over_empty("route", "route", 1000, "route() in a loop: ns over an empty function")
    over_empty("route", "tenant", 1000, "route() of a tenant in a loop: ns over an empty function")
    share("route", "month", "hand", "routed", 0.97, "a month's report: routed, to written against the twin")
    share("route", "month", "legacy", "routed", 1, "a month's report: times as fast routed as on the legacy")
    m = split("select_one_prepared select_one_simple point_one_prepared point_one_simple call", calls, " ")
    for (j = 1; j <= m; j++) share("pairs", calls[j], "few", "many", 0.98, "1,000 pairs: " calls[j])
    w = "maintenance" SUBSEP "idle" SUBSEP
    requirement("run_maintenance with nothing to do, 1,000 tables of 36 partitions, s", "≤", 2, ((w "ours") in seen) ? median(w "ours") / 1000 : 0, "%.2f", (w "ours") in seen)
    times("run_maintenance with nothing to do: times faster than pg_partman", 5, "≥", w "partman", w "ours")
    m = "maintenance" SUBSEP "idle_of_4" SUBSEP "ours"
    requirement("run_maintenance with nothing to do: a table of all, to one of a quarter of them", "≤", 1.25,
        (m in seen) ? median(w "ours") / 4 / median(m) : 0, "%.2f×", m in seen)
    w = "maintenance" SUBSEP "create3" SUBSEP
    times("creating 3 partitions on each table: times faster than pg_partman", 2, "≥", w "partman", w "ours")
    w = "maintenance" SUBSEP "drain" SUBSEP
    times("draining a default: times faster than partition_data_time", 10, "≥", w "partman", w "ours")
    w = "maintenance" SUBSEP "archive" SUBSEP
    times("archive to CSV: times as fast as COPY to a file", 0.8, "≥", w "copy", w "csv")
    times("archive to Parquet: times as fast as COPY to a file", 0.8, "≥", w "copy", w "parquet")
    n = split("health metrics report", works, " ")
    for (j = 1; j <= n; j++) {
        w = "observe" SUBSEP "look" SUBSEP works[j]
        requirement(works[j] " of 1,000 pairs of 36 partitions, s", "≤", works[j] == "report" ? 3 : 1, (w in seen) ? median(w) / 1000 : 0, "%.2f", w in seen)
    }
    w = "observe" SUBSEP "page" SUBSEP "report"
    requirement("the page of 1,000 pairs of 36 partitions, MB", "≤", 5, (w in seen) ? median(w) / 1024 : 0, "%.2f", w in seen)
    printf "\n  %d met, %d missed\n", counted["met"], counted["missed"]
}
END {
    for (g = 1; g <= group_count; g++) print_group(groups[g])
    print_requirements()
}
