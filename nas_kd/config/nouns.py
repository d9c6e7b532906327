"""What the inputs of networks are called in messages: sentences are written of images, and spoken of texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nas_kd.errors import SettingError

TOKENS = "tokens.json"  # in a run folder: what its texts are
# not in paths, names of columns and settings, nor in compounds such as image_path
WORD = re.compile(r"(?<![\w./=-])(an )?(image|Image)(s?)(?![\w/=-]|\.\w)")
MARKUP = re.compile(r"(<(?:style|script|pre|code|bdi)\b.*?</(?:style|script|pre|code|bdi)>|<[^>]*>)", re.DOTALL)


def spoken(sentence: str, texts: bool) -> str:
    """Put texts in the place of images in a sentence.

    Args:
        sentence: written of images.
        texts: whether the data are texts; else the sentence stays as it is.
    """
    return WORD.sub(_text, sentence) if texts else sentence


def spoken_page(part: str, texts: bool) -> str:
    """Do so in what a part of an HTML page shows; its tags, styles, code and words of the user stay as they are.

    Args:
        part: of the page.
        texts: see `spoken`.
    """
    return outside_markup(part, lambda bit: spoken(bit, texts))


def outside_markup(part: str, change: Callable[[str], str]) -> str:
    """Change what a part of an HTML page says, but not its tags, styles and code, nor words of the user (``<bdi>``).

    Args:
        part: of the page, or plain text.
        change: returns other words in the place of some.
    """
    return "".join(bit if at % 2 else change(bit) for at, bit in enumerate(MARKUP.split(part)))


def _text(found: re.Match[str]) -> str:
    article = "a " if found[1] else ""
    return f"{article}{'Text' if found[2][0] == 'I' else 'text'}{found[3]}"


@contextmanager
def spoken_errors(texts: bool) -> Iterator[None]:
    """Speak of texts in what settings are refused with.

    Args:
        texts: see `spoken`.

    Raises:
        SettingError: the one raised inside, in other words.
    """
    try:
        yield
    except SettingError as error:
        if not texts:
            raise
        said = (spoken(error.expected, texts), spoken(error.hint, texts))
        raise type(error)(error.field, error.value, *said).with_traceback(error.__traceback__) from error.__cause__
