"""The clearing house: takes commitments, keeps the books, closes windows, issues statements, pays payees."""
