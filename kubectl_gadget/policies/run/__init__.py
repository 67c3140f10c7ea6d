"""Parts of a run with policies beside its rows: labels, network and installed policies, reactions to pods."""
