-- Payments that go alone, versions that cancel, and wallets that another process would like to have.
-- What was recorded before came from accounts without code: all of it may be joined.

ALTER TABLE payments ADD COLUMN alone INTEGER NOT NULL DEFAULT 0;
ALTER TABLE transaction_versions ADD COLUMN cancels INTEGER NOT NULL DEFAULT 0;
ALTER TABLE wallets ADD COLUMN wanted_at BIGINT NOT NULL DEFAULT 0;
