-- The store's own name, drawn once. It is part of the keys under which its payments are settled: two stores of one seller
-- (two machines, each with a file) are two callers, of which a facilitator tells one alone that a payment succeeded.
CREATE TABLE seller_fact (
    fact  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
