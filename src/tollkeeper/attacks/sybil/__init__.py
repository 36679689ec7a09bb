"""Several accounts of one attacker: spread the queries, bring the answers into one space."""
