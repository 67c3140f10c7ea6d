"""What a run with policies does beside its rows: labels, network policies, installed policies, reactions to pods."""
