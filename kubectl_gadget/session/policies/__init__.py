"""What a run with policies does beside showing rows: labels, network policies, installed policies, reactions to
pods."""
