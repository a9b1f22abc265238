"""Doors for sellers: what puts a price on the routes of an ASGI or WSGI application."""
