"""The few letters that the test picture is labelled with, five dots wide and seven high."""

from typing import Final

WIDTH: Final = 5
# One hexadecimal pair a row; the highest of the five bits is the left dot.
DOTS: Final = {
    "A": "0e11111f111111",
    "I": "0e04040404040e",
    "L": "1010101010101f",
    "M": "111b1515111111",
    "O": "0e11111111110e",
    "R": "1e11111e141211",
    "S": "0f10100e01011e",
    "T": "1f040404040404",
    "U": "1111111111110e",
    "0": "0e13151519110e",
    "1": "040c040404040e",
    "2": "0e11010204081f",
    "3": "1f02040201110e",
    "4": "02060a121f0202",
    "5": "1f101e0101110e",
    "6": "0608101e11110e",
    "7": "1f010204080808",
    "8": "0e11110e11110e",
    "9": "0e11110f01020c",
    ".": "00000000000c0c",
}


def write(picture: bytearray, line_size: int, text: str, *, left: int, top: int, size: int) -> None:
    """Put *text* in white on *picture*, a dot being *size* pixels wide and high."""
    for place, letter in enumerate(text):
        for row, dots in enumerate(bytes.fromhex(DOTS[letter])):
            for column in range(WIDTH):
                if dots >> (WIDTH - 1 - column) & 1:
                    x = left + (place * (WIDTH + 1) + column) * size
                    for y in range(top + row * size, top + (row + 1) * size):
                        picture[y * line_size + x : y * line_size + x + size] = b"\xf0" * size
