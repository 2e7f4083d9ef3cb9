-- A hospitality group's books: who owns what, what came in, what went out, and what lay in the tills.
-- Indexes and foreign keys come after the load (constraints.sql).

CREATE TABLE organizations (
    id         serial PRIMARY KEY,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE properties (
    id         serial PRIMARY KEY,
    org_id     int NOT NULL,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE revenues (
    id                 serial PRIMARY KEY,
    org_id             int NOT NULL,
    property_id        int,
    amount_cents       bigint NOT NULL CHECK (amount_cents >= 0),
    occurred_at        timestamp NOT NULL,
    description        text,
    category           text,
    payment_method     text,
    status             text NOT NULL DEFAULT 'pending',
    created_by_user_id int,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE revenues IS 'what guests paid';
COMMENT ON COLUMN revenues.occurred_at IS 'when it was earned, in the time of the property';

CREATE TABLE expenses (
    id                 serial PRIMARY KEY,
    org_id             int NOT NULL,
    property_id        int,
    amount_cents       bigint NOT NULL CHECK (amount_cents >= 0),
    occurred_at        timestamp NOT NULL,
    description        text,
    category           text,
    payment_method     text,
    status             text NOT NULL DEFAULT 'pending',
    created_by_user_id int,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE expenses IS 'what suppliers got';

CREATE TABLE daily_cash_balances (
    id                serial PRIMARY KEY,
    org_id            int NOT NULL,
    property_id       int NOT NULL,
    balance_date      date NOT NULL,
    opening_cents     bigint NOT NULL DEFAULT 0,
    deposits_cents    bigint NOT NULL DEFAULT 0,
    withdrawals_cents bigint NOT NULL DEFAULT 0,
    closing_cents     bigint,
    variance_cents    bigint GENERATED ALWAYS AS
                      (closing_cents - opening_cents - deposits_cents + withdrawals_cents) STORED,
    notes             text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, property_id, balance_date)
);
COMMENT ON TABLE daily_cash_balances IS 'what lay in the till, morning and evening';
