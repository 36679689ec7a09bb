"""Making the networks of responses with torch, as graphs that answer without it."""
