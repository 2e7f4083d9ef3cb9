-- What the tables carry besides their rows; quicker to build after the load.

\set ON_ERROR_STOP on

\echo indexes
CREATE INDEX revenues_org_id_occurred_at_idx ON revenues (org_id, occurred_at DESC);
CREATE INDEX revenues_property_id_occurred_at_idx ON revenues (property_id, occurred_at DESC);
CREATE INDEX revenues_pending_idx ON revenues (org_id) WHERE status = 'pending';

CREATE INDEX expenses_org_id_occurred_at_idx ON expenses (org_id, occurred_at DESC);
CREATE INDEX expenses_property_id_occurred_at_idx ON expenses (property_id, occurred_at DESC);
CREATE INDEX expenses_pending_idx ON expenses (org_id) WHERE status = 'pending';

\echo foreign keys
ALTER TABLE properties ADD FOREIGN KEY (org_id) REFERENCES organizations;
ALTER TABLE revenues ADD FOREIGN KEY (org_id) REFERENCES organizations,
                     ADD FOREIGN KEY (property_id) REFERENCES properties;
ALTER TABLE expenses ADD FOREIGN KEY (org_id) REFERENCES organizations,
                     ADD FOREIGN KEY (property_id) REFERENCES properties;
ALTER TABLE daily_cash_balances ADD FOREIGN KEY (org_id) REFERENCES organizations,
                                ADD FOREIGN KEY (property_id) REFERENCES properties;

\echo statistics
ANALYZE organizations, properties, revenues, expenses, daily_cash_balances;
