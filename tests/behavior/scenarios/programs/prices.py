"""A dependency of the Flask program."""


def price(thing: str) -> int:
    return len(thing)
