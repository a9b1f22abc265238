-- What makes a promise count once is its id, a hash: an index in the order of hashes writes another page for nearly every
-- row. The id binds payer and expiry, so that (expires, id) is unique where (payer, id) is, and rows of one time lie
-- together there. A note finds its commitment by the same.
ALTER TABLE edge_sent ADD COLUMN expires BIGINT NOT NULL DEFAULT 0;
UPDATE edge_sent SET expires = COALESCE(
    (SELECT c.expires FROM edge_commitment c WHERE c.payer = edge_sent.payer AND c.id = edge_sent.id), 0);
ALTER TABLE edge_sent DROP COLUMN seq;
ALTER TABLE edge_commitment DROP CONSTRAINT edge_commitment_payer_id_key;
CREATE UNIQUE INDEX edge_commitment_once ON edge_commitment (expires, id);
