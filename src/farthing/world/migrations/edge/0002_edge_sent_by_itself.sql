-- A note that an answer went out names its commitment itself: a long answer may end when the commitment was uploaded, is
-- over, and was dropped from here.
ALTER TABLE edge_sent ADD COLUMN payer TEXT NOT NULL DEFAULT '';
ALTER TABLE edge_sent ADD COLUMN id TEXT NOT NULL DEFAULT '';
UPDATE edge_sent SET
    payer = COALESCE((SELECT c.payer FROM edge_commitment c WHERE c.seq = edge_sent.seq), ''),
    id = COALESCE((SELECT c.id FROM edge_commitment c WHERE c.seq = edge_sent.seq), '');
DELETE FROM edge_sent WHERE id = '';
