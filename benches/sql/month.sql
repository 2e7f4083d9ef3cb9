SELECT org_id, category, count(*), sum(amount_cents) FROM @from@
WHERE occurred_at >= bench.first_month() + interval '12 months' AND occurred_at < bench.first_month() + interval '13 months'
GROUP BY org_id, category
