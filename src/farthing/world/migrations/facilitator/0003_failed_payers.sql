-- Payers whose settling calls failed, so that they can be kept from wasting more gas; and confirmed payments by block, so
-- that the newest blocks are compared first where some were lost, and the oldest where some became final.

ALTER TABLE payments ADD COLUMN failed_at BIGINT NOT NULL DEFAULT 0;
-- How many of its calls failed that shared their transaction with no other: those are the payer's own doing.
ALTER TABLE payments ADD COLUMN failed_alone INTEGER NOT NULL DEFAULT 0;
CREATE INDEX payments_failed ON payments (failed_at) WHERE failed_at > 0;
CREATE INDEX payments_confirmed ON payments (network, block_number, payment_id) WHERE state = 'confirmed';
