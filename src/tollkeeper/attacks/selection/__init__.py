"""Which inputs of a pool are worth a query."""
