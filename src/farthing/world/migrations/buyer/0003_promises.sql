-- Payments on credit. promise: what was signed together with the request, as JSON, on record before it leaves (''
-- for other payments). receipt: the seller's signature over its answer, as JSON, verified by a key of its directory.
ALTER TABLE purchases ADD COLUMN promise TEXT NOT NULL DEFAULT '';
ALTER TABLE purchases ADD COLUMN receipt TEXT NOT NULL DEFAULT '';
