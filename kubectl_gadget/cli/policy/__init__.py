"""Commands about policies: enforce, and the sub-commands of `policy`."""
