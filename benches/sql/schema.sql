-- One variant's tables, in the first schema of search_path: revenues, with a primary key and three more indexes.
-- One row a month keeps the variants alike and gives the copy something to begin with.
CREATE TABLE revenues (
    id                 serial PRIMARY KEY,
    org_id             int NOT NULL,
    property_id        int,
    amount_cents       bigint NOT NULL,
    occurred_at        timestamp NOT NULL,
    description        text,
    category           text,
    payment_method     text,
    status             text NOT NULL DEFAULT 'pending',
    created_by_user_id int,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON revenues (org_id, occurred_at DESC);
CREATE INDEX ON revenues (property_id, occurred_at DESC);
CREATE INDEX ON revenues (occurred_at) WHERE status = 'pending';
INSERT INTO revenues (org_id, amount_cents, occurred_at)
SELECT 1, m, bench.first_month() + m * interval '1 month' FROM generate_series(0, 23) m;
