"""What a run with policies does beside its rows: labels of pods, installed policies, pods deleted in reaction."""
