"""What a guard costs thieves and honest users: the figures of merit."""
