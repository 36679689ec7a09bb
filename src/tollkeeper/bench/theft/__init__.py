"""What every theft experiment is made of: tasks, pools, guarded victims, scores, curves."""
