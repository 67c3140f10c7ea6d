"""Commands that write policies and profiles from what was seen: the advisors of `advise`."""
