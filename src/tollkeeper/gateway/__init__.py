"""The gateway: an OpenAI-compatible server in front of a guarded encoder."""
