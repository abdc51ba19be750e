"""Text of unknown origin on a terminal."""


def printable(text: str) -> str:
    """``text`` for a terminal: a file may hold characters that move its cursor, or worse."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
