"""From what containers were seen to do to what can be applied: policies, profiles, patches. No I/O."""
