ALTER TABLE revenues_partitioned ADD PRIMARY KEY (id, occurred_at);
CREATE INDEX ON revenues_partitioned (org_id, occurred_at DESC);
CREATE INDEX ON revenues_partitioned (property_id, occurred_at DESC);
CREATE INDEX ON revenues_partitioned (occurred_at) WHERE status = 'pending';
