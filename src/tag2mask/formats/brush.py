"""Label Studio's run lengths of a brush: bits, not bytes.

32 bits: how many values, 4 for each pixel (red, green, blue, alpha). 5 bits: the size of a value.
4 times 4 bits: the sizes of the numbers that hold a length. Then the runs: 1 bit (one value that is
repeated, or a list of values), 2 bits (which of the four sizes), the length, the value or values.
Source: rle-pack of github.com/thi-ng/umbrella, as label_studio_sdk.converter.brush has it.
"""

import numpy as np

LENGTHS = (3, 4, 8, 16)  # bits of a length
LONGEST = 1 << LENGTHS[-1]  # values of a run
OPAQUE = 128  # alpha: a pixel of which the brush covers half


def encode_brush(region: np.ndarray) -> list[int]:
    """A region, (H, W) bool, to the bytes that Label Studio has in "rle"."""
    pixels = region.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(pixels)) + 1, [pixels.size]])
    lengths = 4 * np.diff(starts)
    pieces = -(-lengths // LONGEST)
    last = lengths - (pieces - 1) * LONGEST
    values = np.repeat(np.where(pixels[starts[:-1]], 255, 0), pieces)
    lengths = np.full(values.size, LONGEST)
    lengths[np.cumsum(pieces) - 1] = last
    kind = np.searchsorted([1 << size for size in LENGTHS], lengths)
    size = np.array(LENGTHS)[kind]
    codes = (((0b100 | kind) << size | lengths - 1) << 8) | values
    sizes = 1 + 2 + size + 8
    header = [f"{4 * pixels.size:032b}{8 - 1:05b}", *(f"{size - 1:04b}" for size in LENGTHS)]
    bits = np.concatenate([np.array([*"".join(header)], np.uint8), _bits(codes, sizes)])
    end = np.zeros(8 - bits.size % 8, np.uint8)
    packed: list[int] = np.packbits(np.concatenate([bits, end])).tolist()
    return packed


def _bits(codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Numbers, each in its size [bits], one after the other: zeros and ones, uint8."""
    places = np.arange(int(sizes.max()))
    bits = (codes << places.size - sizes)[:, None] >> places[::-1] & 1
    flat: np.ndarray = bits[places < sizes[:, None]].astype(np.uint8)
    return flat


def decode_brush(data: bytes, height: int, width: int) -> np.ndarray:
    """What Label Studio has in "rle" to the region of a picture: (H, W) bool.

    Raises ValueError if it is not of this picture, or no such code.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    text = (bits + ord("0")).tobytes().decode()
    if len(text) < 32 + 5 + 4 * 4:
        raise ValueError("its code has no beginning")
    count = int(text[:32], 2)
    if count != 4 * height * width:
        what = f"its code is for {count // 4} pixels"
        raise ValueError(f"{what}, the picture has {width} x {height}")
    if text[32:37] != "00111":
        raise ValueError("the values of its code do not have 8 bits")
    sizes = [int(text[place : place + 4], 2) + 1 for place in range(37, 53, 4)]
    alpha = np.zeros(height * width, np.uint8)
    place, start = 53, 0
    while start < count:
        if len(text) < place + 3:
            raise ValueError("its code ends too early")
        repeated, size = text[place] == "1", sizes[int(text[place + 1 : place + 3], 2)]
        values = place + 3 + size
        end = start + int(text[place + 3 : values] or "0", 2) + 1
        place = values + 8 * (1 if repeated else end - start)
        if len(text) < place or end > count:
            raise ValueError("its code ends too early or is longer than the picture")
        run = np.packbits(bits[values:place])
        # Each fourth value is alpha: those from start to end are of the pixels start // 4 to ...
        alpha[start // 4 : end // 4] = run if repeated else run[(3 - start) % 4 :: 4]
        start = end
    return (alpha >= OPAQUE).reshape(height, width)
