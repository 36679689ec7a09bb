"""Ledgers: durable state of every pool; `open.open_ledger` picks the store by URL."""
