# Medians, least, most and ratios of results.tsv: part, work, variant, milliseconds.
BEGIN {
    title["forward", "insert_one"] = "one-row INSERT into the legacy"
    title["forward", "insert_bulk"] = "INSERT … SELECT of " bulk " rows into the legacy"
    title["reverse", "insert_one"] = "one-row INSERT into the twin"
    title["reverse", "insert_bulk"] = "INSERT … SELECT of " bulk " rows into the twin"
    title["change", "update_one"] = "one-row UPDATE"
    title["change", "delete_one"] = "one-row DELETE"
    title["change", "update_bulk"] = "UPDATE of " changes " rows"
    title["change", "delete_bulk"] = "DELETE of " changes " rows"
    title["copy", "copy"] = "copy of " copy " rows"
    title["copy", "verify"] = "proof of " copy " rows a side"
    label["none"] = "no sync"
    label["live"] = "partition_router, live"
    label["capture"] = "partition_router, during the copy"
    label["cte"] = "one statement that writes both (CTE)"
    label["statement"] = "PL/pgSQL statement trigger"
    label["row"] = "PL/pgSQL row trigger with upsert"
    label["indexed"] = "INSERT … SELECT, indexes in place"
    label["bare"] = "INSERT … SELECT, then the indexes"
    label["ours"] = "partition_router"
    label["whole"] = "the same, and ANALYZE of the twin"
    label["count"] = "count(*) on both sides"
    label["hash"] = "sum(hash_record_extended) on both"
    label["counts"] = "partition_router, level counts"
}
{
    group = $1 SUBSEP $2
    key = group SUBSEP $3
    if (!(group in variants)) groups[++group_count] = group
    if (!(key in seen)) variants[group] = variants[group] " " $3
    seen[key]++
    value[key, seen[key]] = $4 + 0
}
function median(key,    n, i, j, t, v) {
    n = seen[key]
    for (i = 1; i <= n; i++) v[i] = value[key, i]
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] < v[j - 1]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    least = v[1]
    most = v[n]
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function shown(ms) { return ms >= 1000 ? sprintf("%.2f s", ms / 1000) : ms >= 10 ? sprintf("%.0f ms", ms) : sprintf("%.3f ms", ms) }
END {
    for (g = 1; g <= group_count; g++) {
        split(groups[g], part, SUBSEP)
        printf "%s\n", title[part[1], part[2]]
        n = split(variants[groups[g]], names, " ")
        base = median(groups[g] SUBSEP names[1])
        for (i = 1; i <= n; i++) {
            m = median(groups[g] SUBSEP names[i])
            rate = part[2] == "copy" ? sprintf("  %9d rows/s", copy / m * 1000) : ""
            printf "  %-36s %10s   %10s – %-10s %6.2f×%s\n", label[names[i]], shown(m), shown(least), shown(most), (base > 0 ? m / base : 0), rate
        }
        print ""
    }
}
