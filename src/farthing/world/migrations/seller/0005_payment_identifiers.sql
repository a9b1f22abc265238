-- The payment-identifiers of clients, each bound to its payment in the commit that claims it. `scope` is a hash of network,
-- payer, route and id: an id means nothing elsewhere.
CREATE TABLE seller_identifier (
    scope      TEXT NOT NULL PRIMARY KEY,
    payment_id TEXT NOT NULL
);
