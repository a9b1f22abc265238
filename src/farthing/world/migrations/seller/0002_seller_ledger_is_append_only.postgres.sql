-- An entry is never edited: a correction is an entry of its own.
CREATE FUNCTION seller_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END;
$$;
CREATE TRIGGER seller_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seller_ledger
FOR EACH STATEMENT EXECUTE FUNCTION seller_append_only();
