# A table of docs/scaling.md, of lines "growth, rows or partitions, SIZE:WHAT, value" (milliseconds, microseconds, kB).
# Variable: only, rows or partitions.
{
    if (!(($2, $3) in seen)) {
        split($3, p, ":")
        if (!(($2, p[1]) in size_seen)) { size_seen[$2, p[1]] = 1; sizes[$2] = sizes[$2] " " p[1] }
    }
    n = ++seen[$2, $3]
    value[$2, $3, n] = $4
}
function median(axis, what,    n, i, j, t, v) {
    n = seen[axis, what]
    for (i = 1; i <= n; i++) v[i] = value[axis, what, i] + 0
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] < v[j - 1]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n == 0 ? 0 : n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function pair(axis, size, work) {
    return sprintf("%.0f → %.0f", median(axis, size ":" work "_none"), median(axis, size ":" work "_live"))
}
END {
    count = split(sizes[only], names, " ")
    if (!count) exit
    print "| " only " | twin made, s | till live, s | rows/s | flip, ms | then ANALYZE, s | INSERT, µs | UPDATE, µs | 100,000 rows, ms | WAL of one of them, bytes | locks | memory, MB | WAL, GB | heap, GB | indexes, GB |"
    print "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for (i = 1; i <= count; i++) {
        k = names[i] ":"
        live = median(only, k "backfill")
        line = sprintf("| %s | %.1f | %.1f", names[i], median(only, k "twin") / 1000, live / 1000)
        line = line sprintf(" | %d", live > 0 ? median(only, k "count") / live * 1000 : 0)
        line = line sprintf(" | %.0f", median(only, k "flip"))
        line = line sprintf(" | %.1f", median(only, k "analyze") / 1000)
        line = line " | " pair(only, names[i], "insert") " | " pair(only, names[i], "update")
        line = line " | " pair(only, names[i], "bulk") " | " pair(only, names[i], "wal_row")
        line = line sprintf(" | %d", median(only, k "locks"))
        line = line sprintf(" | %.0f | %.2f", median(only, k "memory") / 1024, median(only, k "wal") / 1073741824)
        print line sprintf(" | %.2f | %.2f |", median(only, k "heap") / 1073741824, median(only, k "indexes") / 1073741824)
    }
}
