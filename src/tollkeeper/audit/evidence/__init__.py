"""Commitments before the first query, custody after it, and what a third party rechecks."""
