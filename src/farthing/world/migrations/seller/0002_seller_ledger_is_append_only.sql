-- An entry is never edited: a correction is an entry of its own.
CREATE TRIGGER seller_ledger_no_update BEFORE UPDATE ON seller_ledger
BEGIN
    SELECT RAISE(ABORT, 'seller_ledger is append-only');
END;
CREATE TRIGGER seller_ledger_no_delete BEFORE DELETE ON seller_ledger
BEGIN
    SELECT RAISE(ABORT, 'seller_ledger is append-only');
END;
