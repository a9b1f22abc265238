"""The facilitator: verifies payments and settles them, as flows and tables of states."""
